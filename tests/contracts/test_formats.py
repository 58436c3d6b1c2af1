"""What every registered file format promises, whatever it stores."""

from contextlib import suppress

import numpy as np
import pytest

from lamina.errors import FileError, LaminaError
from lamina.io import FORMATS, is_scan, read_volume, strip_suffix, write_volume
from lamina.volume import Volume

SUFFIXES = [suffix for name in FORMATS for suffix in FORMATS.get(name).suffixes]
SHAPES = {2: (1, 5, 4), 3: (1, 5, 4, 3)}
GRIDS = {
    "2D": np.diag([-0.5, 1.5, 1, 1]),
    "3D": np.diag([-0.5, 1.5, 2, 1]),
    "picture": np.diag([-1, -1, 1, 1]),
}
READ_ONLY = {"dicom", "npy"}
"""Formats of several files, which cannot be replaced in one step."""

every_suffix = pytest.mark.parametrize("suffix", SUFFIXES)


def _volume(grid):
    shape = SHAPES[3 if grid == "3D" else 2]
    unit = "px" if grid == "picture" else "mm"
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    return Volume(array, GRIDS[grid], unit=unit)


def test_no_two_formats_claim_one_suffix():
    assert len(set(SUFFIXES)) == len(SUFFIXES)


@every_suffix
def test_suffixes_are_found_in_any_case_and_stripped(suffix):
    assert suffix == suffix.lower()
    for name in (f"case.7{suffix}", f"case.7{suffix.upper()}"):
        assert is_scan(name)
        assert strip_suffix(f"folder/{name}") == "case.7"


@pytest.mark.parametrize("name", sorted(set(FORMATS) - READ_ONLY))
def test_some_volume_can_be_written(name, tmp_path):
    for suffix in FORMATS.get(name).suffixes:
        for grid in GRIDS:
            with suppress(FileError):
                write_volume(_volume(grid), tmp_path / f"{grid}{suffix}")
    assert list(tmp_path.iterdir())


@every_suffix
@pytest.mark.parametrize("grid", GRIDS)
def test_what_can_be_written_is_read_back_the_same(suffix, grid, tmp_path):
    volume, path = _volume(grid), tmp_path / f"scan{suffix}"
    try:
        write_volume(volume, path)
    except FileError:
        assert not list(tmp_path.iterdir())
        return
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
    found = read_volume(path)
    np.testing.assert_array_equal(found.array, volume.array)
    assert found.array.dtype == volume.array.dtype
    np.testing.assert_allclose(found.affine, volume.affine, atol=1e-6)
    assert found.source == str(path)


@every_suffix
@pytest.mark.parametrize("content", [b"", b"\0" * 1000, b"no scan\n" * 100, b"\xff" * 1000])
def test_what_is_no_scan_is_refused_with_its_name(suffix, content, tmp_path):
    path = tmp_path / f"scan{suffix}"
    path.write_bytes(content)
    with pytest.raises(LaminaError, match=path.name) as caught:
        read_volume(path)
    assert caught.value.remedy
