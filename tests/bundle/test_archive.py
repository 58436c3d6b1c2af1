"""What a bundle file refuses to be, however it was tampered with."""

import os
import re
import resource
import shutil
import stat
import struct
import subprocess
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamina.bundle.archive import LIMITS, read_archive, write_archive
from lamina.errors import BundleError, FileError


def write(path: Path, entries: list[tuple[zipfile.ZipInfo | str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for entry, data in entries:
            archive.writestr(entry, data)
    return path


def refused(path: Path, *words: str) -> None:
    """Assert that reading ``path`` fails with a message that names the file and says ``words``."""
    with pytest.raises(BundleError) as caught:
        read_archive(path)
    for word in (str(path), *words):
        assert word in caught.value.message
    assert caught.value.remedy


def test_members_come_back_without_their_checksums(saved, members):
    assert read_archive(saved) == {k: v for k, v in members.items() if k != "SHA256SUMS"}


def test_equal_content_gives_equal_bytes(members, tmp_path):
    content = {name: data for name, data in members.items() if name != "SHA256SUMS"}
    write_archive(tmp_path / "a.lamina", content)
    write_archive(tmp_path / "b.lamina", content)
    assert (tmp_path / "a.lamina").read_bytes() == (tmp_path / "b.lamina").read_bytes()


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_checksums_are_what_sha256sum_reads(saved, tmp_path):
    zipfile.ZipFile(saved).extractall(tmp_path)
    check = ["sha256sum", "--strict", "-c", "SHA256SUMS"]
    answer = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines() == [
        "README.md: OK",
        "bundle.json: OK",
        "weights.safetensors: OK",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "../evil.py",
        "/etc/passwd",
        "..\\evil.py",
        "C:\\evil",
        "folder/",
        "bundle.json\0.py",
        "x.pkl",
    ],
)
def test_foreign_member_is_refused(name, members, tmp_path):
    path = tmp_path / "x.lamina"
    hole = "@" * len(name)  # zipfile cleans names when writing; the bytes are put in afterwards
    write(path, [*members.items(), (hole, b"")])
    path.write_bytes(path.read_bytes().replace(hole.encode(), name.encode()))
    refused(path, repr(name), "no part of a bundle")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFDIR])
def test_link_or_special_file_is_refused(kind, members, tmp_path):
    link = zipfile.ZipInfo("README.md")
    link.create_system = 3
    link.external_attr = (kind | 0o777) << 16
    entries = [(link if k == "README.md" else k, data) for k, data in members.items()]
    refused(write(tmp_path / "x.lamina", entries), "README.md", "link")


def test_duplicate_member_is_refused(members, tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"):
        path = write(tmp_path / "x.lamina", [*members.items(), ("bundle.json", b"{}")])
    refused(path, "bundle.json twice")


@pytest.mark.parametrize("name", sorted(LIMITS))
def test_missing_member_is_refused(name, members, tmp_path):
    entries = [(k, data) for k, data in members.items() if k != name]
    refused(write(tmp_path / "x.lamina", entries), f"lacks {name}")


def test_encrypted_member_is_refused(saved, tmp_path):
    refused(
        patched(saved, tmp_path, "README.md", offset=8, value=struct.pack("<H", 1)), "encrypted"
    )


def test_foreign_compression_is_refused(members, tmp_path):
    path = tmp_path / "x.lamina"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    refused(path, "neither stored nor deflated")


def test_oversized_member_is_refused_by_its_header(repack):
    refused(repack({"README.md": bytes(LIMITS["README.md"] + 1)}), "README.md", "1,048,577 bytes")


def test_weights_declared_beyond_the_limit_are_refused(saved, tmp_path):
    huge = struct.pack("<I", 3 << 30)
    path = patched(saved, tmp_path, "weights.safetensors", offset=24, value=huge)
    refused(path, "weights.safetensors", "3,221,225,472 bytes")


def test_bomb_behind_a_lying_header_is_not_inflated(repack, tmp_path):
    bomb = repack({"bundle.json": bytes(64 << 20)})
    path = patched(bomb, tmp_path, "bundle.json", offset=24, value=struct.pack("<I", 1000))
    tracemalloc.start()
    try:
        refused(path, "bundle.json", "altered or damaged")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize("name", sorted(LIMITS))
def test_altered_member_is_named(name, members, tmp_path):
    altered = bytearray(members[name])
    altered[len(altered) // 2] ^= 1
    entries = [(k, bytes(altered) if k == name else data) for k, data in members.items()]
    path = write(tmp_path / "x.lamina", entries)  # the zip's own checksum is right again
    # One digit of the checksums changed: they accuse the member of that line.
    refused(path, "bundle.json" if name == "SHA256SUMS" else name, "altered or damaged")


def test_byte_altered_on_the_disk_is_named(saved, members, tmp_path):
    data = bytearray(saved.read_bytes())
    data[data.index(members["weights.safetensors"]) + 5000] ^= 1
    path = tmp_path / "x.lamina"
    path.write_bytes(data)
    refused(path, "weights.safetensors", "altered or damaged")


def test_surplus_checksum_line_is_refused(members, tmp_path):
    sums = members["SHA256SUMS"] + b"0" * 64 + b"  more.py\n"
    path = write(tmp_path / "x.lamina", [*{**members, "SHA256SUMS": sums}.items()])
    refused(path, "SHA256SUMS", "altered or damaged")


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x05\x06" + bytes(18)])
def test_other_files_are_refused(content, tmp_path):
    path = tmp_path / "x.lamina"
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_file_is_refused(share, saved, tmp_path):
    path = tmp_path / "x.lamina"
    path.write_bytes(saved.read_bytes()[: int(saved.stat().st_size * share)])
    refused(path, "damaged")


def test_missing_file_folder_and_pipe_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "absent.lamina", tmp_path, tmp_path / "pipe"):
        refused(path, "no such file")


def test_oversized_member_is_not_written(tmp_path):
    with pytest.raises(BundleError, match=r"README\.md.*1,048,577 bytes"):
        write_archive(tmp_path / "x.lamina", {"README.md": bytes(LIMITS["README.md"] + 1)})
    assert list(tmp_path.iterdir()) == []


def test_interrupted_write_leaves_the_earlier_file(saved, tmp_path):
    path = tmp_path / "x.lamina"
    shutil.copy(saved, path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # as if the disk ran full
    try:
        with pytest.raises(FileError, match=re.escape(str(path))):
            write_archive(path, {"weights.safetensors": bytes(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == saved.read_bytes()


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_random_damage_is_refused_or_harmless(data, saved, members, tmp_path):
    damaged = bytearray(saved.read_bytes())
    size = len(damaged)
    anywhere = st.integers(0, size - 1) | st.integers(size - 400, size - 1)
    for position in data.draw(st.lists(anywhere, max_size=6)):
        damaged[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.just(size) | anywhere)
    path = tmp_path / "x.lamina"
    path.write_bytes(damaged[:cut])
    intact = {k: v for k, v in members.items() if k != "SHA256SUMS"}
    found = outcome(path)
    assert str(path) in found if isinstance(found, str) else found == intact


def outcome(path: Path) -> dict[str, bytes] | str:
    """Return what was read, or the message it was refused with."""
    try:
        return read_archive(path)
    except BundleError as error:
        return error.message


def patched(source: Path, folder: Path, member: str, *, offset: int, value: bytes) -> Path:
    """Overwrite bytes of a member's entry in the central directory (APPNOTE 4.3.12)."""
    data = bytearray(source.read_bytes())
    entry = data.rindex(member.encode()) - 46  # the fixed part of the entry precedes the name
    assert data[entry : entry + 4] == b"PK\x01\x02"
    data[entry + offset : entry + offset + len(value)] = value
    path = folder / "patched.lamina"
    path.write_bytes(data)
    return path
