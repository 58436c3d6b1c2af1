"""Headers that would send SimpleITK to another file than the one that was looked at."""

import tempfile

import numpy as np
import pytest

from lamina.errors import FileError
from lamina.io import read_volume

OWN = b"own voxel" * 60
SECRET = b"my secret" * 60
META = b"NDims = 3\nBinaryData = True\nDimSize = 8 8 8\nElementType = MET_UCHAR\n"
NRRD = (
    b"NRRD0004\ntype: uint8\ndimension: 3\nspace: LPS\nsizes: 8 8 8\n"
    b"space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\nencoding: raw\n"
)
HERE, THERE = b"ElementDataFile = LOCAL\n", b"ElementDataFile = %(file)s\n"


@pytest.fixture
def secret(tmp_path):
    file = tmp_path / "elsewhere" / "secret.raw"
    file.parent.mkdir()
    file.write_bytes(SECRET)
    return str(file).encode()


def _own_or_refused(path):
    try:
        stored = read_volume(path).array.tobytes(order="F")
    except FileError:
        return True
    return stored in path.read_bytes() or stored in OWN


@pytest.mark.parametrize(
    "fields",
    [
        THERE,
        b"elementdatafile = LOCAL\nElementDataFileX = q\n" + THERE,
        b"ELEMENTDATAFILE = LOCAL\nElementDataFile2 = q\n" + THERE,
        b"elementdatafile = LOCAL\nElementDataFileX = q\nElementDataFile = LIST 2\n%(file)s\n",
        b"Comment =\n" + HERE + THERE,
        b"Comment = \t\r\n" + HERE + THERE,
        b"Comment = \v\n" + HERE + THERE,
        b"Comment :=:\n" + HERE + THERE,
        b"Comment = a\r" + THERE + HERE,
        b"Comment = " + b"a" * 600 + b"\n" + HERE + THERE,
        b"remark\n" + HERE + THERE,
        b"#\r" + THERE + HERE,
        b"Offset = 0 0\n" + HERE + THERE,
        b"Offset =\n" + HERE + THERE,
        b"TransformMatrix = 1 0 0 0 1 0 0 0\r" + THERE + HERE + THERE,
        b"ElementType\n" + HERE + THERE,
        b"ElementDataFile\xa0= LOCAL\n" + THERE,
        b"ElementDataFile\f= LOCAL\n" + THERE,
        b"ElementDataFile\0 = LOCAL\n" + THERE,
        b"ElementDataFile\n = %(file)s\n",
        b"ElementDataFile : LOCAL = %(file)s\n",
        b"ElementDataFile := %(file)s\n",
        b"ElementDataFile = LoCaL\n" + THERE,
        b"ElementDataFile = LOCAL %(file)s\n",
        b"ElementDataFile = LIST\n%(file)s\n",
        b"\t ElementDataFile\t= LOCAL \t\n" + THERE,
        b"a" * 1023 + b" = " + HERE + THERE,
        b"Comment = " + b"a" * (1 << 20) + b"\n" + THERE,
    ],
)
@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
def test_metaimages_cannot_name_files_elsewhere(tmp_path, secret, suffix, fields):
    path = tmp_path / f"scan{suffix}"
    path.write_bytes(META + fields.replace(b"%(file)s", secret) + OWN)
    assert _own_or_refused(path)


@pytest.mark.parametrize(
    "fields",
    [
        b"data file: %s\n",
        b"DataFile: %s\n",
        b"DATA FILE: \t%s \n",
        b"datafile: own.raw\ndata file: %s\n",
        b"data file: %s\ndata file:=own.raw\n",
        b"data file:\t%s\n",
        b"data=file: %s\n",
        b"# remark\rdata file: %s\n",
        b"content: remark\rdata file: %s\n",
        b"number: 1\rdatafile: %s\n\n",
        b"key:=value\rdata file: %s\n",
        b" \ndata file: %s\n",
        b"\t\r\ndata file: %s\n",
        b"\x0b\ndata file: %s\n",
        b"\x85\ndata file: %s\n",
        b"key:=\0\ndata file: %s\n",
        b"data file: LIST\n%s\n",
        b"data file: LIST 2\n%s\n",
        b"data file: own%%d.raw 1 1 1\n",
        b"# " + b"a" * (1 << 20) + b"\ndata file: %s\n",
        b"# remark\n" * (1 << 18) + b"data file: %s\n",
    ],
)
@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr"])
def test_nrrds_cannot_name_files_elsewhere(tmp_path, secret, suffix, fields):
    for beside in ("own.raw", "LIST", "LIST 2", "=own.raw"):
        (tmp_path / beside).write_bytes(OWN)
    path = tmp_path / f"scan{suffix}"
    path.write_bytes(NRRD + fields.replace(b"%s", secret) + b"\n" + OWN)
    assert _own_or_refused(path)


@pytest.mark.parametrize("name", ["-", "a:b"])
def test_names_that_mean_other_places_to_the_reader_of_nrrd_are_files_beside(
    tmp_path, monkeypatch, name
):
    """Standard input, and a drive of Windows."""
    path = tmp_path / "scan.nhdr"
    path.write_bytes(NRRD + b"data file: " + name.encode() + b"\n")
    (tmp_path / name).write_bytes(OWN)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here" / name).write_bytes(SECRET)
    assert read_volume(path).array.tobytes(order="F") == OWN[:512]


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_a_missing_temporary_folder_is_told(tmp_path, monkeypatch, suffix):
    path, absent = tmp_path / f"scan{suffix}", tmp_path / "absent"
    path.write_bytes((NRRD + b"\n" if suffix == ".nrrd" else META + HERE) + OWN)
    monkeypatch.setattr(tempfile, "tempdir", str(absent))
    with pytest.raises(FileError, match="temporary folder") as error:
        read_volume(path)
    assert str(absent) in error.value.message
    assert "TMPDIR" in error.value.remedy


def test_a_metaimage_may_hold_fields_that_mean_nothing_here(tmp_path):
    path = tmp_path / "scan.mha"
    unknown = "0008|1030 = two\nlines\nComment =\nDescription = größer\n".encode()
    path.write_bytes(META + unknown + HERE + OWN)
    assert read_volume(path).array.tobytes(order="F") == OWN[:512]


@pytest.mark.parametrize("size", [b"3", b"-1"])
def test_voxels_may_start_behind_a_header_of_the_second_file(tmp_path, size):
    path = tmp_path / "scan.mhd"
    path.write_bytes(META + b"HeaderSize = " + size + b"\nElementDataFile = voxels 100%.raw\n")
    (tmp_path / "voxels 100%.raw").write_bytes(b"xyz" + OWN[:512])
    np.testing.assert_array_equal(
        read_volume(path).array.ravel(order="F"), np.frombuffer(OWN[:512], np.uint8)
    )
