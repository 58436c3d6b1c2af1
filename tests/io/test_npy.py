"""NumPy arrays: what the JSON file beside them says, and what is refused."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamina.errors import FileError, GeometryError, LaminaError
from lamina.io import read_labels, read_volume, write_volume
from lamina.volume import Volume

ARRAY = np.arange(24, dtype=np.int16).reshape(2, 3, 4)

many = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def _pair(folder, array=ARRAY, **entries):
    path = folder / "scan.1.npy"
    np.save(path, array)
    (folder / "scan.1.json").write_text(json.dumps(entries))
    return path


def _raw(path, header, voxels=b"", version=b"\1\0"):
    width = 2 if version == b"\1\0" else 4
    text = header.encode()
    size = len(text).to_bytes(width, "little")
    path.write_bytes(b"\x93NUMPY" + version + size + text + voxels)
    return path


def test_spacing_is_in_the_order_of_the_arrays_axes(tmp_path):
    volume = read_volume(_pair(tmp_path, spacing=[1, 2.5, 3], orientation="RAS"))
    assert (volume.spacing, volume.orientation, volume.unit) == ((1, 2.5, 3), "RAS", "mm")
    np.testing.assert_array_equal(volume.array, ARRAY[None])
    np.testing.assert_array_equal(volume.affine, np.diag([1, 2.5, 3, 1]))


@pytest.mark.parametrize("orientation", ["LPS", "SPL", "PIR", "RA", "LP", "AS", "SR"])
def test_orientation_says_where_each_axis_runs_to(tmp_path, orientation, caplog):
    dims = len(orientation)
    spacing = (1, 2, 3)[:dims]
    path = _pair(
        tmp_path, ARRAY if dims == 3 else ARRAY[0], spacing=spacing, orientation=orientation
    )
    volume = read_volume(path)
    assert (volume.orientation, volume.spacing) == (orientation, spacing)
    assert not caplog.messages


def test_an_orientation_that_is_assumed_is_told(tmp_path, caplog):
    assert read_volume(_pair(tmp_path, spacing=[1, 2, 3])).orientation == "RAS"
    assert "scan.1.json: does not say how it lies in the body" in caplog.text
    caplog.clear()
    assert read_volume(_pair(tmp_path, ARRAY[0], spacing=[1, 2])).orientation == "RA"
    assert not caplog.messages


@pytest.mark.parametrize(
    ("spacing", "first", "shape"),
    [
        ([1, 1], True, (2, 3, 4)),
        ([1, 1], False, (4, 2, 3)),
        ([1, 1, 1], True, (1, 2, 3, 4)),
        ([1, 1, 1], False, (1, 2, 3, 4)),
    ],
)
def test_an_axis_beyond_the_spacing_is_the_channels(tmp_path, spacing, first, shape):
    volume = read_volume(_pair(tmp_path, spacing=spacing, channels_first=first))
    assert volume.array.shape == shape
    channels = ARRAY if first or len(spacing) == 3 else np.moveaxis(ARRAY, -1, 0)
    np.testing.assert_array_equal(volume.array, channels.reshape(shape))


@pytest.mark.parametrize(("dtype", "first"), [("u1", False), ("u1", True), ("u2", False)])
def test_bytes_with_three_of_them_last_are_a_picture_in_colour(tmp_path, dtype, first):
    array = np.ones((3, 4, 5) if first else (4, 5, 3), dtype)
    path = _pair(tmp_path, array, spacing=[1, 1], channels_first=first)
    assert read_volume(path).in_colour is (dtype == "u1" and not first)


@pytest.mark.parametrize("dtype", ["?", "u1", "<i2", ">i2", "u8", "f2", ">f4", "f8"])
def test_real_numbers_of_any_type_load_in_native_order(tmp_path, dtype):
    array = (ARRAY % 2).astype(dtype)
    for order in ("C", "F"):
        found = read_volume(
            _pair(tmp_path, np.asarray(array, order=order), spacing=[1, 1, 1])
        ).array
        np.testing.assert_array_equal(found[0], array)
        assert found.dtype == np.dtype("u1" if dtype == "?" else dtype).newbyteorder("=")
        assert found.dtype.isnative
        assert found.flags.writeable


def test_truth_values_and_whole_floats_are_labels(tmp_path):
    for dtype in ("?", "f4"):
        path = _pair(tmp_path, (ARRAY > 5).astype(dtype), spacing=[1, 1, 1])
        np.testing.assert_array_equal(read_labels(path).array[0], ARRAY > 5)


def test_without_its_json_file_an_array_has_no_geometry(tmp_path):
    np.save(tmp_path / "scan.npy", ARRAY)
    with pytest.raises(GeometryError, match=r"scan\.npy: .* scan\.json is not there") as caught:
        read_volume(tmp_path / "scan.npy")
    assert '{"spacing": [...]}' in caught.value.remedy


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "spacing is None"),
        ({"spacing": 1}, "spacing is 1"),
        ({"spacing": [1]}, r"spacing is \[1\]"),
        ({"spacing": [1, 1, 1, 1]}, "2 or 3 positive numbers"),
        ({"spacing": [1, 0, 1]}, "positive"),
        ({"spacing": [1, -2, 1]}, "positive"),
        ({"spacing": [1, "2", 1]}, "positive"),
        ({"spacing": [1, True, 1]}, "positive"),
        ({"spacing": [1, float("nan"), 1]}, "positive"),
        ({"spacing": [1, 10**400, 1]}, "positive"),
        ({"spacing": [1, 1]}, r"scan\.1\.npy: has 3 axes, .* where the channels are"),
        ({"spacing": [1, 1], "channels_first": 1}, "where the channels are"),
        ({"spacing": [1, 1, 1], "orientation": "RA"}, "orientation 'RA' is not 3 letters"),
        ({"spacing": [1, 1, 1], "orientation": "XYZ"}, "orientation 'XYZ'"),
        ({"spacing": [1, 1, 1], "orientation": 7}, "orientation 7"),
        ({"spacing": [1, 1, 1], "orientation": "RLS"}, "singular"),
        ({"spacing": [1, 1], "channels_first": True, "orientation": "RL"}, "singular"),
    ],
)
def test_geometry_that_does_not_fit_is_refused(tmp_path, entries, message):
    with pytest.raises(GeometryError, match=message) as caught:
        read_volume(_pair(tmp_path, **entries))
    assert caught.value.remedy


def test_arrays_of_too_many_or_too_few_axes_are_refused(tmp_path):
    for shape in ((), (5,), (1, 1, 1, 1, 1)):
        with pytest.raises(GeometryError, match=rf"has {len(shape)} axes"):
            read_volume(_pair(tmp_path, np.zeros(shape), spacing=[1, 1, 1], channels_first=True))


@pytest.mark.parametrize("content", ["", "no json", "[" * 9999, "[1, 2]", '"text"'])
def test_a_json_file_that_is_none_is_refused_with_its_name(tmp_path, content):
    path = _pair(tmp_path)
    path.with_suffix(".json").write_text(content)
    with pytest.raises(LaminaError, match=r"scan\.1\.json: ") as caught:
        read_volume(path)
    assert caught.value.remedy


@pytest.mark.parametrize("dtype", ["c8", "U3", "M8[s]", [("a", "u1")], "O"])
def test_other_things_than_numbers_are_refused(tmp_path, dtype):
    path = _pair(tmp_path, np.zeros((2, 2, 2), dtype), spacing=[1, 1, 1])
    with pytest.raises(FileError, match=r"scan\.1\.npy: cannot be read"):
        read_volume(path)


def test_what_was_pickled_is_never_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path / "sprung").touch, ()

    path = _pair(tmp_path, np.array([[Trap()]], object), spacing=[1, 1])
    with pytest.raises(FileError):
        read_volume(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "shape",
    [
        "(2000, 2000, 2000)",
        "(4294967296, 4294967296)",
        "(9223372036854775807, 2, 2)",
        "(10" + "0" * 300 + ", 2)",
        "(-5, 2, 2)",
        "(2, 2.5)",
        "7",
        "(0, 3, 3)",
        "(" + "1, " * 40 + ")",
    ],
)
def test_a_header_that_claims_too_much_takes_no_memory(tmp_path, shape):
    path = _pair(tmp_path, spacing=[1, 1, 1])
    _raw(path, f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}\n", bytes(64))
    with pytest.raises(LaminaError, match=r"scan\.1\.npy: "):
        read_volume(path)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "{",
        "[" * 5000,
        "{'descr': '<f8'}",
        "{'descr': 'nonsense', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 2L)}'''",
        "{1: 2, 'a': 3}",
        " " * 60000,
        "__import__('os').getcwd()",
    ],
)
@pytest.mark.parametrize("version", [b"\1\0", b"\2\0", b"\3\0", b"\7\7"])
def test_a_header_that_is_none_is_refused(tmp_path, header, version):
    path = _raw(_pair(tmp_path, spacing=[1, 1]), header, bytes(64), version)
    with pytest.raises(FileError, match=r"scan\.1\.npy: cannot be read") as caught:
        read_volume(path)
    assert "\n" not in str(caught.value)


@many
@given(
    where=st.floats(0, 1, exclude_max=True),
    data=st.binary(min_size=1, max_size=4) | st.text("0123456789,()L'", min_size=1).map(str.encode),
    insert=st.booleans(),
)
def test_damage_gives_an_array_or_one_error(tmp_path, where, data, insert):
    path = _pair(tmp_path, spacing=[1, 1, 1], channels_first=True)
    content = bytearray(path.read_bytes())
    at = int(where * 80)
    content[at : at + len(data) * (not insert)] = data
    path.write_bytes(content)
    error = None
    try:
        read_volume(path)
    except LaminaError as caught:
        error = caught
    if error is not None:
        assert "scan.1." in str(error)
        assert "\n" not in str(error)


def test_arrays_cut_anywhere_are_refused(tmp_path):
    path = _pair(tmp_path, spacing=[1, 1, 1])
    content = path.read_bytes()
    for end in range(len(content)):
        path.write_bytes(content[:end])
        with pytest.raises(FileError, match=path.name):
            read_volume(path)


def test_an_archive_named_like_an_array_is_refused(tmp_path):
    path = _pair(tmp_path, spacing=[1, 1, 1])
    with path.open("wb") as stream:
        np.savez(stream, ARRAY)
    with pytest.raises(FileError, match="cannot be read"):
        read_volume(path)


def test_arrays_are_not_written(tmp_path):
    with pytest.raises(FileError, match=r"scan\.npy: .* read, not written.* Write \.nii\.gz"):
        write_volume(Volume(ARRAY[None], np.eye(4)), tmp_path / "scan.npy")
    assert not list(tmp_path.iterdir())
