"""Uploads from strangers: taken apart, unpacked, and found out what they are."""

import struct
import zipfile

import numpy as np
import pytest
from served import zipped

from lamina.errors import FileError
from lamina.io import write_volume
from lamina.serve.errors import UploadError
from lamina.serve.intake import find_scan, unpack
from lamina.serve.intake.scans import MOST_VALUES
from lamina.volume import Volume

NIFTI_DIMS = 40


def unpacked(folder, content, max_bytes=10**6, max_files=10):
    archive = folder / "00000.zip"
    archive.write_bytes(content)
    return unpack(archive, folder, max_bytes=max_bytes, max_files=max_files)


def entry(name, mode=0o100644, method=zipfile.ZIP_DEFLATED):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr, info.compress_type = 3, mode << 16, method
    return info


def test_members_get_names_of_the_servers_making(tmp_path):
    names = ["../../a.nii.gz", "/etc/b.dcm", "c/../../d", "__MACOSX/e.nii", "f/._g.nii", "h/"]
    found = unpacked(tmp_path, zipped([(name, b"x") for name in names]))
    assert list(found.values()) == names[:3]
    assert [path.name for path in found] == ["m00000.nii.gz", "m00001.dcm", "m00002"]
    assert all(path.parent == tmp_path and path.read_bytes() == b"x" for path in found)
    assert not (tmp_path / "00000.zip").exists()


def test_members_are_told_of_by_printable_names_of_bounded_length(tmp_path):
    found = unpacked(tmp_path, zipped([("a\x1b[2J\n.nii", b"x"), ("b" * 3000 + ".nii", b"x")]))
    first, second = found.values()
    assert first == "a?[2J?.nii"
    assert (len(second), second[-5:]) == (1024, "b.nii")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (zipped([("zeros.nii", bytes(4 << 20))]), "grows more than"),
        (zipped([(f"{n}.nii", bytes(900_000)) for n in range(2)]), "unpacks to more"),
        (zipped([(f"{n}.nii", b"") for n in range(11)]), "more than 10 files"),
        (zipped([("inner.zip", zipped([("a.nii", b"a")]))]), "another archive"),
        (zipped([("a.nii", b"Rar!....")]), "another archive"),
        (zipped([(entry("link", 0o120777), b"/etc/passwd")]), "link"),
        (zipped([(entry("a.nii", method=zipfile.ZIP_BZIP2), b"a" * 99)]), "uncommon"),
        (zipped([("a.nii", b"a" * 999)])[:-30], "no zip archive"),
        (b"", "no zip archive"),
    ],
    ids=["bomb", "large", "many", "nested", "rar", "link", "bzip2", "cut", "empty"],
)
def test_unsafe_archives_are_refused(tmp_path, content, said):
    with pytest.raises(UploadError, match=said):
        unpacked(tmp_path, content)


def test_an_archive_that_lies_about_its_sizes_is_not_believed(tmp_path):
    content = zipped([("a.nii", np.random.default_rng(0).bytes(50_000))])
    true, small = struct.pack("<I", 50_000), struct.pack("<I", 10)
    with pytest.raises(UploadError, match="damaged"):
        unpacked(tmp_path, content.replace(true, small))
    assert sum(path.stat().st_size for path in tmp_path.glob("m*")) <= 10


def test_a_full_disk_is_told_as_such(tmp_path):
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped([("a.nii", b"1")]))
    with pytest.raises(UploadError, match="disk takes no more") as raised:
        unpack(archive, tmp_path / "nowhere", max_bytes=99, max_files=9)
    assert raised.value.status == 507


def test_an_encrypted_archive_is_refused(tmp_path):
    content = bytearray(zipped([("a.nii", b"abc")]))
    content[content.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(UploadError, match="encrypted"):
        unpacked(tmp_path, bytes(content))


def test_a_huge_directory_is_refused_before_it_is_read(tmp_path):
    content = bytearray(zipped([("a.nii", b"abc")]))
    end = content.rindex(b"PK\x05\x06")
    content[end + 12 : end + 16] = struct.pack("<I", 1 << 30)
    with pytest.raises(UploadError, match="more than"):
        unpacked(tmp_path, bytes(content))


@pytest.mark.parametrize("number", [10, 11])
def test_entries_are_counted_whatever_the_archive_says_of_their_number(
    tmp_path, monkeypatch, number
):
    content = bytearray(zipped([(f"{n}.nii", b"") for n in range(number)]))
    end = content.rindex(b"PK\x05\x06")
    content[end + 8 : end + 12] = struct.pack("<2H", 1, 1)
    if number > 10:
        monkeypatch.setattr(zipfile, "ZipFile", lambda _: pytest.fail("it was read into memory"))
        with pytest.raises(UploadError, match="more than 10 files"):
            unpacked(tmp_path, bytes(content))
    else:
        assert len(unpacked(tmp_path, bytes(content))) == 10


def test_an_archive_of_the_64_bit_kind_is_refused(tmp_path):
    content = zipped([("a.nii", b"abc")])
    end = content.rindex(b"PK\x05\x06")
    with pytest.raises(UploadError, match="64-bit"):
        unpacked(tmp_path, content[:end] + b"PK\x06\x07" + bytes(16) + content[end:])


def volume(folder, name, channels=1):
    path = folder / name
    write_volume(Volume(np.ones((channels, 4, 5, 6), np.int16), np.eye(4)), path)
    return path


def test_channels_are_taken_in_the_order_of_their_names(tmp_path):
    second, first = volume(tmp_path, "00000.nii.gz"), volume(tmp_path, "00001.nii.gz")
    scan = find_scan({second: "brain_0001.nii.gz", first: "brain_0000.nii.gz"}, 2)
    assert scan.images == (first, second)
    assert not scan.is_dicom


def test_channels_are_taken_as_the_user_said(tmp_path):
    second, first = volume(tmp_path, "00000.nii.gz"), volume(tmp_path, "00001.nii.gz")
    scan = find_scan({second: "b.nii.gz", first: "a.nii.gz"}, 2, ordered=True)
    assert scan.images == (second, first)


@pytest.mark.parametrize(
    ("files", "channels", "said"),
    [
        ({"a.nii.gz": "a", "b.nii.gz": "b"}, 1, "2 scans were sent"),
        ({f"{n}.nii.gz": n for n in "abc"}, 2, "one file for each channel, or one that holds"),
        ({}, 1, "No file was sent"),
        ({"notes.txt": "a"}, 1, "No scan is among"),
        ({"a.mhd": "a"}, 1, "Save it as .mha"),
    ],
)
def test_what_is_no_scan_for_the_model_is_refused(tmp_path, files, channels, said):
    for name in files:
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(FileError) as error:
        find_scan({tmp_path / name: given for name, given in files.items()}, channels)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("suffix", "before"),
    [(".nii", ""), (".nii.gz", ""), (".nrrd", ""), (".nrrd", " "), (".mha", ""), (".mha", " ")],
)
def test_a_header_that_claims_too_much_is_refused_before_it_is_read(tmp_path, suffix, before):
    path = tmp_path / f"00000{suffix}"
    side = int(np.ceil(MOST_VALUES ** (1 / 3))) + 1
    if suffix.startswith(".nii"):
        volume(tmp_path, "small.nii")
        content = bytearray((tmp_path / "small.nii").read_bytes())
        content[NIFTI_DIMS : NIFTI_DIMS + 8] = struct.pack("<4h", 3, *[side] * 3)
        if suffix == ".nii.gz":
            import gzip

            content = gzip.compress(content)
    else:
        sizes = f"{side} {side} {side}"
        nrrd = "NRRD0004\ntype: uchar\ndimension: 3\nencoding: gzip\n"
        nrrd += f"long:={'x' * 70_000}\n{before}sizes: {sizes}\n\n"
        meta = f"ObjectType = Image\nNDims = 3\nComment = {'x' * 70_000}\n"
        meta += f"{before}DimSize = {sizes}\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
        content = (nrrd if suffix == ".nrrd" else meta).encode()
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"mine: claims more than 2,147,483,648 voxels"):
        find_scan({path: "mine"}, 1)


def test_files_that_are_no_scan_are_told(tmp_path):
    scan = volume(tmp_path, "00000.nii.gz")
    sent = {scan: "scan.nii.gz", tmp_path / ".x": "a/.DS_Store"}
    sent |= {tmp_path / f"{n}.txt": f"a/{n}.txt" for n in range(6)}
    for path in sent.keys() - {scan}:
        path.write_text("no scan")
    assert find_scan(sent, 1).flags == (
        "No scan, and not used: 0.txt, 1.txt, 2.txt, 3.txt and 2 more.",
    )


class TestDicom:
    """Series among the files that were sent."""

    @pytest.fixture(autouse=True)
    def _writer(self):
        pytest.importorskip("pydicom")

    def sent(self, *folders):
        return {path: f"x/{path.name}" for folder in folders for path in sorted(folder.iterdir())}

    def test_the_largest_series_is_taken_and_the_user_told(self, tmp_path):
        from dicom_scans import write_series

        write_series(tmp_path, size=(6, 5, 4))
        other = tmp_path / "other"
        scout = write_series(other, size=(6, 5, 2))
        for path in other.iterdir():
            path.rename(tmp_path / f"scout-{path.name}")
        other.rmdir()
        (tmp_path / "notes.txt").write_text("no image")
        scan = find_scan(self.sent(tmp_path), 1)
        assert scan.is_dicom
        assert scan.images == (tmp_path,)
        assert scan.series != scout[0].SeriesInstanceUID
        assert scan.flags == (
            "2 series were sent; the largest was segmented (CT, 4 slices).",
            "No scan, and not used: notes.txt.",
        )

    def test_equally_large_series_are_not_chosen_from(self, tmp_path):
        from dicom_scans import write_series

        write_series(tmp_path, size=(6, 5, 2))
        for path in list(tmp_path.iterdir()):
            path.rename(tmp_path / f"first-{path.name}")
        write_series(tmp_path, size=(6, 5, 2))
        with pytest.raises(FileError, match="Send one of them"):
            find_scan(self.sent(tmp_path), 1)

    def test_claims_of_many_pixels_are_refused(self, tmp_path):
        from dicom_scans import write_series

        write_series(tmp_path, size=(6, 5, 1), Rows=60_000, Columns=60_000)
        with pytest.raises(FileError, match="claims more than"):
            find_scan(self.sent(tmp_path), 1)

    @pytest.mark.parametrize("preamble", [True, False])
    def test_deflated_files_are_not_unpacked(self, tmp_path, preamble):
        import pydicom

        from dicom_scans import write_series

        write_series(tmp_path, size=(6, 5, 1))
        (path,) = tmp_path.iterdir()
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
        dataset.save_as(path)
        if not preamble:
            path.write_bytes(path.read_bytes()[132:])
        with pytest.raises(FileError, match="deflated" if preamble else "No scan is among"):
            find_scan(self.sent(tmp_path), 1)

    @pytest.mark.parametrize("names", [["m.nii.gz"], ["m.png"], ["a.nii.gz", "b.mha"]])
    def test_a_series_and_other_scans_are_not_chosen_from(self, tmp_path, names):
        from dicom_scans import write_series

        write_series(tmp_path, size=(6, 5, 4))
        for name in names:
            (tmp_path / name).write_bytes(b"")
        with pytest.raises(FileError, match=f"A DICOM series and {len(names)} other scan"):
            find_scan(self.sent(tmp_path), len(names))

    def test_segmentations_and_doses_are_no_series(self, tmp_path):
        from dicom_scans import write_enhanced, write_series

        slices = write_series(tmp_path, size=(6, 5, 4))
        for name, sop_class in (("seg", "66.4"), ("map", "66.7"), ("dose", "481.2")):
            for header in slices:
                header.SeriesInstanceUID = f"2.25.{len(name)}{sop_class[-1]}"
            sop_class = f"1.2.840.10008.5.1.4.1.1.{sop_class}"
            write_enhanced(tmp_path / f"{name}.dcm", [*slices, *slices], sop_class=sop_class)
        scan = find_scan(self.sent(tmp_path), 1)
        assert scan.series not in {header.SeriesInstanceUID for header in slices}
        assert scan.flags == ("No scan, and not used: dose.dcm, map.dcm, seg.dcm.",)
