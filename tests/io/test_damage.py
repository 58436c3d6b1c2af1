"""Random damage gives the true voxels or one error of ours: no crash, no traceback, no lie."""

import gzip

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamina.errors import LaminaError
from lamina.io import read_volume, write_volume
from lamina.volume import Volume

ARRAY = np.random.default_rng(0).integers(0, 200, (1, 7, 6, 5), np.int16)
HEADER_END = {
    ".nii": lambda _: 352,
    ".nrrd": lambda b: b.index(b"\n\n"),
    ".mha": lambda b: b.index(b"LOCAL"),
}

many = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
damages = st.lists(
    st.tuples(
        st.sampled_from(["replace", "delete", "insert", "repeat"]),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=4)
        | st.text("0123456789-. ()\n", min_size=1).map(str.encode),
    ),
    min_size=1,
    max_size=4,
)


def _damaged(content, damages, start, end):
    content = bytearray(content)
    for kind, where, data in damages:
        at = start + int(where * (min(end, len(content)) - start))
        if kind == "delete":
            del content[at : at + len(data)]
        elif kind == "replace":
            content[at : at + len(data)] = data
        else:
            content[at:at] = data * (100 if kind == "repeat" else 1)
    return bytes(content)


def _written(folder, suffix):
    path = folder / f"scan{suffix}"
    write_volume(Volume(ARRAY, np.diag([1, 2, 3, 1])), path)
    return path, path.read_bytes()


def _read(path, content):
    path.write_bytes(content)
    try:
        return read_volume(path)
    except LaminaError as caught:
        message = str(caught)
    assert path.name in message
    assert "\n" not in message
    assert len(message) < len(str(path)) + 500
    return None


@pytest.mark.parametrize("suffix", HEADER_END)
@many
@given(damages=damages)
def test_damaged_headers(tmp_path, suffix, damages):
    path, content = _written(tmp_path, suffix)
    _read(path, _damaged(content, damages, 0, HEADER_END[suffix](content)))


@many
@given(
    field=st.sampled_from(
        ["dim", "datatype", "vox_offset", "pixdim", "quatern", "srow", "scl", "codes"]
    ),
    data=st.data(),
)
def test_damaged_fields_of_nifti(tmp_path, field, data):
    start, length, dtype = {
        "dim": (40, 8, "<i2"),
        "datatype": (70, 1, "<i2"),
        "vox_offset": (108, 1, "<f4"),
        "pixdim": (76, 8, "<f4"),
        "quatern": (256, 6, "<f4"),
        "srow": (280, 12, "<f4"),
        "scl": (112, 2, "<f4"),
        "codes": (252, 2, "<i2"),
    }[field]
    path, content = _written(tmp_path, ".nii")
    value = data.draw(st.floats(width=32) if dtype == "<f4" else st.integers(-(2**15), 2**15 - 1))
    at = start + np.dtype(dtype).itemsize * data.draw(st.integers(0, length - 1))
    stored = np.array(value, dtype).tobytes()
    _read(path, content[:at] + stored + content[at + len(stored) :])


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
@many
@given(damages=damages)
def test_damaged_voxels_that_are_compressed(tmp_path, suffix, damages):
    path, content = _written(tmp_path, suffix)
    start = 10 if suffix == ".nii.gz" else HEADER_END[suffix](content) + 6
    found = _read(path, _damaged(content, damages, start, len(content)))
    assert found is None or np.array_equal(found.array, ARRAY)


@many
@given(damages=damages)
def test_damaged_headers_in_sound_gzip(tmp_path, damages):
    path, content = _written(tmp_path, ".nii.gz")
    _read(path, gzip.compress(_damaged(gzip.decompress(content), damages, 0, 352), 1))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_files_cut_at_any_byte(tmp_path, suffix):
    path, content = _written(tmp_path, suffix)
    for end in range(0, len(content), 3):
        assert _read(path, content[:end]) is None
