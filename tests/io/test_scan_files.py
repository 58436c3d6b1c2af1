"""Reading and writing by path: names, missing files, full disks, label maps."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from lamina.errors import FileError, LabelError
from lamina.io import claim_of, is_scan, read_labels, read_volume, strip_suffix, write_volume
from lamina.volume import Volume

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha")

each_suffix = pytest.mark.parametrize("suffix", SUFFIXES)


def _volume(array):
    return Volume(np.asarray(array), np.eye(4))


def _noise(size):
    values = np.random.default_rng(0).integers(0, 256, (1, size, size, size), np.uint8)
    return _volume(values)


def test_importing_the_layer_imports_no_format():
    check = "import sys, lamina.io; print({'nibabel', 'SimpleITK'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, check=True)
    assert done.stdout.strip() == b"set()"


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("a.nii", "a"),
        ("a.nii.gz", "a"),
        ("71.name.with.dots.nii.gz", "71.name.with.dots"),
        ("A.NII.GZ", "A"),
        ("İ 画.nRRd", "İ 画"),
    ],
)
def test_the_case_id_is_the_name_without_its_longest_suffix(name, case):
    assert strip_suffix(Path("somewhere.nii") / name) == case
    assert is_scan(name)


@pytest.mark.parametrize("name", [".hidden.nii", "._a.nii.gz", "a.txt", "a.gz", "nii", "a.nii.zip"])
def test_other_files_are_no_scans(name):
    assert not is_scan(Path("folder.nii") / name)


def test_unknown_suffixes_name_the_known_ones(tmp_path):
    path = tmp_path / "scan.xyz"
    path.write_bytes(b"")
    for use in (read_volume, strip_suffix, lambda path: write_volume(_noise(2), path)):
        with pytest.raises(FileError, match=r"scan\.xyz: .* Known: .*\.mha, .*\.nii, \.nii\.gz"):
            use(path)


def test_dicom_without_a_suffix_is_read_and_never_written_over(tmp_path):
    pytest.importorskip("pydicom")
    from dicom_scans import write_series

    write_series(tmp_path, size=(4, 5, 1))
    (path,) = tmp_path.iterdir()
    assert (strip_suffix(path), is_scan(path)) == (path.name, False)
    assert read_volume(path).spatial_shape == (4, 5, 1)
    assert claim_of(path).values == 20
    with pytest.raises(FileError, match="the suffix is of no known"):
        write_volume(_noise(2), path)


def test_missing_files_and_folders_are_told_apart(tmp_path):
    (tmp_path / "folder.nii").mkdir()
    os.mkfifo(tmp_path / "pipe.nii")
    (tmp_path / "link.nii").symlink_to(tmp_path / "nowhere.nii")
    for name, fault in [
        ("absent.nii", "does not exist"),
        ("link.nii", "does not exist"),
        ("folder.nii", "is a folder without DICOM images"),
        ("pipe.nii", "is a device"),
        ("x" * 300 + ".nii", "File name too long"),
    ]:
        with pytest.raises(FileError, match=f"{name}: .*{fault}"):
            read_volume(str(tmp_path / name))


def test_a_folder_in_the_way_of_a_new_file_is_left_alone(tmp_path):
    (tmp_path / "scan.nii").mkdir()
    with pytest.raises(FileError, match=r"scan\.nii: cannot be written"):
        write_volume(_noise(2), tmp_path / "scan.nii")
    assert [path.name for path in tmp_path.iterdir()] == ["scan.nii"]


OUT_OF_MEMORY = """
import resource, sys
from lamina.errors import FileError
from lamina.io import FORMATS, read_volume
list(FORMATS)
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
try:
    read_volume(sys.argv[1])
except FileError as error:
    print(error)
"""


@pytest.mark.parametrize("suffix", [".nii", ".nrrd"])
def test_scans_larger_than_the_memory_are_refused(tmp_path, suffix):
    """The file does hold as much as its header claims: it is sparse."""
    path = tmp_path / f"huge{suffix}"
    if suffix == ".nii":
        write_volume(_volume(np.zeros((1, 1, 1, 1), np.uint8)), path)
        header = bytearray(path.read_bytes())
        header[42:48] = np.array([2000] * 3, "<i2").tobytes()
        path.write_bytes(header)
    else:
        path.write_text(
            "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2000 2000 2000\nencoding: raw\n\n"
        )
    os.truncate(path, 2000**3 + 1000)
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"{path}: ")
    assert "llocate" in done.stdout


@each_suffix
@pytest.mark.parametrize("size", [2, 60])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch, suffix, size):
    """Small volumes fail only when the file is closed, which SimpleITK does not notice."""
    path = tmp_path / f"scan{suffix}"
    write_volume(_volume(np.zeros((1, 2, 2, 2), np.uint8)), path)
    before = path.read_bytes()
    monkeypatch.setattr("lamina.files.uuid.uuid4", lambda: UUID(int=0))
    (tmp_path / f".part-00000000-scan{suffix}").symlink_to("/dev/full")
    with pytest.raises(FileError, match=rf"scan{suffix}: (no space left|cannot be written)"):
        write_volume(_noise(size), path)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


FILL = """
import sys
from pathlib import Path
import numpy as np
from lamina.errors import FileError
from lamina.io import write_volume
from lamina.volume import Volume
folder, suffixes = Path(sys.argv[1]), sys.argv[2:]
noise = np.random.default_rng(0).integers(0, 256, (1, 80, 80, 80), np.uint8)
for suffix in suffixes:
    try:
        write_volume(Volume(noise, np.eye(4)), folder / f"scan{suffix}")
    except FileError as error:
        print(error, [path.name for path in folder.iterdir()])
"""


def test_a_full_disk_is_called_one_in_every_format(tmp_path):
    mount = f"mount -t tmpfs -o size=256k tmpfs {tmp_path}"
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*inside, mount], check=False).returncode:
        pytest.skip("this system lets no ordinary user mount a file system of its own")
    script = f'{mount} && exec "$0" -c "$1" {tmp_path} {" ".join(SUFFIXES)}'
    done = subprocess.run(
        [*inside, script, sys.executable, FILL], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(SUFFIXES)
    for line, suffix in zip(lines, SUFFIXES, strict=True):
        assert line.startswith(f"{tmp_path}/scan{suffix}: no space left on the disk.")
        assert line.endswith(" []")


@each_suffix
@pytest.mark.parametrize("dtype", ["f4", "f8", "u1", "i2"])
def test_label_maps_are_whole_numbers(tmp_path, suffix, dtype):
    values = np.array([0, 3, 7, 100], dtype=dtype).reshape(1, 4, 1, 1)
    write_volume(_volume(values), tmp_path / f"label{suffix}")
    found = read_labels(tmp_path / f"label{suffix}").array
    assert found.dtype.kind in "iu"
    np.testing.assert_array_equal(found, values)


def test_labels_nearly_whole_are_rounded_and_negative_ones_kept(tmp_path):
    values = np.array([-1.0004, 0.9996, 2, 300.0009]).reshape(1, 4, 1, 1)
    write_volume(_volume(values), tmp_path / "label.nii")
    found = read_labels(tmp_path / "label.nii").array
    assert found.dtype == np.int16
    assert found.ravel().tolist() == [-1, 1, 2, 300]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.5, "0.5"), (1.002, "1.002"), (np.nan, "nan"), (-np.inf, "-inf"), (1e10, "1e")],
)
def test_fractions_and_the_like_are_no_labels(tmp_path, value, shown):
    values = np.array([0, value, 1, value]).reshape(1, 4, 1, 1)
    write_volume(_volume(values), tmp_path / "label.nii")
    with pytest.raises(LabelError, match=rf"label\.nii: 2 voxels are no whole numbers: {shown}"):
        read_labels(tmp_path / "label.nii")


def test_a_label_map_has_one_channel(tmp_path):
    write_volume(_volume(np.zeros((3, 2, 2, 2), np.uint8)), tmp_path / "label.nii")
    with pytest.raises(LabelError, match="holds 3 channels"):
        read_labels(tmp_path / "label.nii")


@pytest.mark.parametrize(("name", "unit"), [("a.png", "mm"), ("a.nii.gz", "px"), ("a.mha", "px")])
def test_millimetres_and_pixels_are_not_taken_for_each_other(tmp_path, name, unit):
    volume = Volume(np.zeros((1, 4, 5), np.uint8), np.diag([-1.0, -1, 1, 1]), unit=unit)
    with pytest.raises(
        FileError, match=f"{name}: this format measures in .*, the volume in {unit}"
    ):
        write_volume(volume, tmp_path / name)
    assert list(tmp_path.iterdir()) == []
