"""Pictures: where pixels come to lie, what numbers they keep, and what is refused."""

import csv
import logging
import struct
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lamina.errors import FileError, GeometryError, LabelError, LaminaError
from lamina.geometry import check_same_grid
from lamina.io import read_labels, read_volume, write_volume
from lamina.io.pictures import used_colours
from lamina.volume import Volume

ROBUSTNESS = Path(__file__).resolve().parents[3] / "shared" / "data" / "robustness"
AFFINE = np.diag([-1, -1, 1, 1])
ORIENTATION = 274
"""Number of the EXIF tag."""
GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)
"""Rows and columns, as Pillow shows pixels; four columns wide."""

many = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def _picture(array, unit="px"):
    return Volume(np.asarray(array), AFFINE, unit=unit)


def _save(path, array, mode=None, **options):
    picture = Image.fromarray(np.asarray(array))
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


def _png(path, size, depth, colour, rows, palette=b""):
    """Write a kind of PNG that Pillow does not: colour 0 is grey, 2 RGB, 3 a palette."""
    header = struct.pack(">2I5B", *size, depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [(b"IHDR", header), (b"PLTE", palette), (b"IDAT", pixels), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in chunks:
        if data or name == b"IEND":
            checksum = struct.pack(">I", zlib.crc32(name + data))
            content += struct.pack(">I", len(data)) + name + data + checksum
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp", "a.PNG", "a.tiff"])
def test_columns_are_the_first_axis_and_rows_the_second(tmp_path, name):
    pixels = np.zeros((5, 7), np.uint8)
    pixels[4, 1] = 200
    volume = read_volume(_save(tmp_path / name, pixels))
    assert volume.array.shape == (1, 7, 5)
    assert np.argwhere(volume.array).tolist() == [[0, 1, 4]]
    assert (volume.unit, volume.orientation, volume.spacing) == ("px", "LP", (1, 1))


def test_colours_are_the_channels(tmp_path):
    pixels = np.zeros((5, 7, 3), np.uint8)
    pixels[4, 1] = 10, 20, 30
    volume = read_volume(_save(tmp_path / "a.png", pixels))
    assert volume.array.shape == (3, 7, 5)
    assert volume.array[:, 1, 4].tolist() == [10, 20, 30]
    assert volume.in_colour
    assert not read_volume(_save(tmp_path / "grey.png", GREY)).in_colour


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg", "a.bmp"])
def test_resolutions_for_printing_are_no_geometry(tmp_path, name):
    volume = read_volume(_save(tmp_path / name, GREY, dpi=(300, 300)))
    assert (volume.unit, volume.spacing) == ("px", (1, 1))


def test_voxels_may_be_changed_by_who_reads_them(tmp_path):
    for shape in ((1, 1), (3, 4), (3, 4, 3)):
        path = _save(tmp_path / "a.png", np.ones(shape, np.uint8))
        assert read_volume(path).array.flags.writeable
        assert read_labels(path).array.flags.writeable


@pytest.mark.parametrize(
    ("mode", "expected"), [("LA", "L"), ("RGBA", "RGB"), ("P", "RGB"), ("PA", "RGB"), ("I", "I")]
)
def test_modes_become_grey_or_colour(tmp_path, mode, expected):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    source = Image.fromarray(pixels).convert("P" if mode == "PA" else "L" if mode == "I" else mode)
    suffix = "tif" if mode in ("PA", "I") else "png"
    source.convert(mode).save(tmp_path / f"a.{suffix}")
    shown = np.atleast_3d(np.array(source.convert(mode).convert(expected)))
    np.testing.assert_array_equal(read_volume(tmp_path / f"a.{suffix}").array, shown.T)


def test_left_out_transparency_is_noted(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    pixels = np.dstack([GREY, GREY, GREY, np.zeros_like(GREY)])
    volume = read_volume(_save(tmp_path / "a.png", pixels))
    np.testing.assert_array_equal(volume.array, np.stack([GREY.T] * 3))
    assert "a.png: its transparency is left out" in caplog.text


def test_cmyk_becomes_rgb(tmp_path):
    pixels = np.full((8, 8, 3), (200, 40, 90), np.uint8)
    volume = read_volume(_save(tmp_path / "a.jpg", pixels, "CMYK", quality=100))
    assert volume.array.shape == (3, 8, 8)
    assert np.abs(volume.array.astype(int) - pixels.T).max() < 8


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_greys_of_few_bits_count_from_zero(tmp_path, depth):
    """Pillow spreads them up to 255; label maps are stored so."""
    path = _png(tmp_path / "a.png", (2, 1), depth, 0, [bytes([0b01 << (8 - 2 * depth)])])
    for use in (read_volume, read_labels):
        found = use(path).array
        assert (found.dtype, found.ravel().tolist()) == (np.uint8, [0, 1])


def test_one_bit_of_tiff_and_bmp_too(tmp_path):
    for name in ("a.tif", "a.bmp"):
        path = _save(tmp_path / name, np.eye(5, dtype=bool))
        np.testing.assert_array_equal(read_volume(path).array, np.eye(5)[None])


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("u2", [0, 300, 65535]),
        ("i2", [-300, 0, 32767]),
        ("i4", [-(2**31), 0, 2**31 - 1]),
        ("u4", [0, 7, 2**32 - 1]),
        ("f4", [-1.5, 0, 1e30]),
    ],
)
def test_wide_numbers_of_tiff_are_kept(tmp_path, dtype, values):
    array = np.array([values], dtype)
    sitk.WriteImage(sitk.GetImageFromArray(array), tmp_path / "a.tif")
    found = read_volume(tmp_path / "a.tif").array
    np.testing.assert_array_equal(found, array.T[None])
    assert found.dtype.isnative


def test_sixteen_bits_of_png_and_of_a_foreign_byte_order_are_kept(tmp_path):
    values = np.array([[1, 256, 65535]], np.uint16)
    rows = [values.astype(">u2").tobytes()]
    stored = [
        _png(tmp_path / "a.png", (3, 1), 16, 0, rows),
        _save(tmp_path / "a.tif", values.astype(">u2")),
    ]
    for path in stored:
        found = read_volume(path).array
        assert (found.dtype, found.ravel().tolist()) == (np.uint16, [1, 256, 65535])


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_colours_of_sixteen_bits_are_refused_rather_than_cut_to_eight(tmp_path, colour, channels):
    path = _png(tmp_path / "a.png", (2, 2), 16, colour, [bytes(4 * channels)] * 2)
    with pytest.raises(FileError, match=r"a\.png: has several channels of 16 bits") as caught:
        read_volume(path)
    assert "colour of 8" in caught.value.remedy


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
@pytest.mark.parametrize(
    ("way_up", "seen"),
    [
        (1, lambda a: a),
        (2, np.fliplr),
        (3, lambda a: np.rot90(a, 2)),
        (4, np.flipud),
        (5, np.transpose),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a, 2).T),
        (8, np.rot90),
    ],
)
def test_the_noted_way_up_is_applied(tmp_path, name, way_up, seen):
    exif = Image.Exif()
    exif[ORIENTATION] = way_up
    quarters = np.kron(np.array([[0, 80], [160, 240], [0, 0]], np.uint8), np.ones((8, 8), np.uint8))
    path = _save(tmp_path / name, quarters, exif=exif)
    for use in (read_volume, read_labels):
        found = use(path).array[0].T.astype(int)
        assert found.shape == seen(quarters).shape
        assert np.abs(found - seen(quarters)).max() < 5


def test_masks_in_a_palette_hold_its_indices(tmp_path):
    for suffix in (".png", ".tif", ".bmp"):
        picture = Image.fromarray(GREY % 3).convert("P")
        picture.putpalette([0, 0, 0, 255, 0, 0, 9, 9, 9, *[0] * 759])
        picture.save(tmp_path / f"mask{suffix}")
        found = read_labels(tmp_path / f"mask{suffix}")
        np.testing.assert_array_equal(found.array[0], GREY.T % 3)
        assert found.unit == "px"
        colours = read_volume(tmp_path / f"mask{suffix}").array
        assert colours[:, 1, 0].tolist() == [255, 0, 0]


def test_the_colours_that_a_palette_gives_the_pixels_are_told(tmp_path):
    indexed = Image.fromarray(np.array([[0, 2], [2, 0]], np.uint8))
    indexed.putpalette([0, 0, 0, 9, 9, 9, 128, 0, 255])
    indexed.save(tmp_path / "palette.png")
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "grey.png")
    assert used_colours(tmp_path / "palette.png") == {0: "#000000", 2: "#8000ff"}
    assert used_colours(tmp_path / "grey.png") == {}
    (tmp_path / "damaged.png").write_bytes((tmp_path / "palette.png").read_bytes()[:60])
    with pytest.raises(FileError, match=r"damaged\.png"):
        used_colours(tmp_path / "damaged.png")


def test_a_palette_of_few_bits_holds_indices_too(tmp_path):
    rows = [bytes([0b00_01_10_11])]
    path = _png(tmp_path / "a.png", (4, 1), 2, 3, rows, palette=bytes(range(12)))
    assert read_labels(path).array.ravel().tolist() == [0, 1, 2, 3]


def test_masks_of_equal_colours_are_one_channel(tmp_path):
    mask = GREY * 20
    for pixels in (np.dstack([mask] * 3), np.dstack([mask] * 3 + [np.full_like(mask, 255)])):
        found = read_labels(_save(tmp_path / "mask.png", pixels))
        np.testing.assert_array_equal(found.array, mask.T[None])


def test_masks_of_true_colours_are_refused(tmp_path):
    pixels = np.dstack([GREY, GREY, GREY + 1])
    with pytest.raises(LabelError, match=r"mask\.png: holds 3 channels"):
        read_labels(_save(tmp_path / "mask.png", pixels))


def test_the_content_counts_and_not_the_suffix(tmp_path):
    _save(tmp_path / "a.jpg", GREY, format="PNG")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.jpg").array[0], GREY.T)


def test_other_formats_of_pillow_are_refused_whatever_their_name(tmp_path):
    for kind in ("GIF", "WEBP", "PPM"):
        _save(tmp_path / "a.png", GREY, format=kind)
        with pytest.raises(FileError, match=r"a\.png: is no PNG, JPEG, TIFF or BMP picture"):
            read_volume(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_several_pages_are_refused(tmp_path, name):
    pages = [Image.fromarray(GREY + number) for number in range(3)]
    pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    with pytest.raises(FileError, match=f"{name}: holds 3 pictures") as caught:
        read_volume(tmp_path / name)
    assert "NIfTI" in caught.value.remedy


def test_the_previews_in_a_cameras_jpeg_are_no_pages(tmp_path):
    picture = Image.fromarray(np.full((8, 8), 100, np.uint8))
    picture.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[picture.resize((4, 4))])
    assert read_volume(tmp_path / "a.jpg").array.shape == (1, 8, 8)


@pytest.mark.parametrize("size", [(20000, 20000), (2**31 - 1, 2**31 - 1), (12000, 8000)])
def test_claims_of_too_many_pixels_take_no_memory(tmp_path, size):
    """The last is where Pillow only warns."""
    path = _png(tmp_path / "bomb.png", size, 8, 2, [b""])
    tracemalloc.start()
    with pytest.raises(FileError, match=r"bomb\.png: claims more than \d+ pixels"):
        read_volume(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
@many
@given(highest=st.integers(0, 255), dtype=st.sampled_from(["?", "i1", "i2", "u4", "i8"]))
def test_label_maps_of_any_integers_come_back(tmp_path, suffix, highest, dtype):
    """Such as the segmentation of a picture, on its grid."""
    values = np.minimum([[0, 1, highest]], 1 if dtype == "?" else np.iinfo(dtype).max)
    segmentation = replace(_picture(np.zeros((3, 1, 3))), array=values[None].astype(dtype))
    write_volume(segmentation, tmp_path / f"mask{suffix}")
    found = read_labels(tmp_path / f"mask{suffix}").array
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, values[None])


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_the_same_picture_gives_the_same_bytes(tmp_path, suffix):
    for name in ("first", "second"):
        write_volume(_picture(GREY[None]), tmp_path / f"{name}{suffix}")
    first, second = (tmp_path / f"{name}{suffix}" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("name", "volume", "message"),
    [
        ("a.jpg", _picture(GREY[None]), ".jpg files are read, not written. Write .png"),
        ("a.jpeg", _picture([GREY] * 3), "Write .png"),
        ("a.png", Volume(GREY[None], np.diag([-2, -1, 1, 1]), unit="px"), "where its pixels are"),
        ("a.png", _picture(GREY[None, :, :, None]), "where its pixels are"),
        ("a.png", _picture([GREY] * 2), "PNG does not hold 2 channels of uint8"),
        ("a.png", _picture([GREY.astype("u2")] * 3), "PNG does not hold 3 channels of uint16"),
        ("a.bmp", _picture(GREY[None].astype("u2")), "BMP does not hold 1 channels of uint16"),
        ("a.bmp", _picture(GREY[None].astype("i4") * 99), "BMP does not hold 1 channels of uint16"),
        ("a.png", _picture(GREY[None].astype("i4") - 1), "of int8"),
        ("a.tif", _picture(GREY[None].astype("f4")), "TIFF does not hold 1 channels of float32"),
    ],
)
def test_what_a_picture_cannot_hold_is_refused(tmp_path, name, volume, message):
    with pytest.raises(FileError, match=f"{name}: .*{message}"):
        write_volume(volume, tmp_path / name)
    assert not list(tmp_path.iterdir())


def _read(path, use):
    """Return what is read or the error, which must be a good one."""
    try:
        return use(path), None
    except LaminaError as caught:
        error = caught
    assert path.name in error.message
    assert error.remedy
    assert "\n" not in str(error)
    return None, error


def _damaged(content, damages):
    content = bytearray(content)
    for insert, where, data in damages:
        at = int(where * len(content))
        content[at : at + len(data) * (not insert)] = data
    return bytes(content)


damages = st.lists(
    st.tuples(st.booleans(), st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=4)),
    min_size=1,
    max_size=3,
)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".jpg", ".tif"])
@many
@given(damages=damages)
def test_damage_gives_a_picture_or_one_error(tmp_path, suffix, damages):
    """Only PNG has checksums: a picture is then the true one."""
    pixels = np.random.default_rng(0).integers(0, 200, (9, 7, 3), np.uint8)
    path = _save(tmp_path / f"a{suffix}", pixels)
    path.write_bytes(_damaged(path.read_bytes(), damages))
    found, error = _read(path, read_volume)
    if error is not None:
        assert len(str(error)) < len(str(path)) + 400
    elif suffix == ".png":
        np.testing.assert_array_equal(found.array, pixels.T)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".jpg", ".tif"])
def test_pictures_cut_anywhere_before_their_last_pixel_are_refused(tmp_path, suffix):
    pixels = np.random.default_rng(0).integers(0, 200, (9, 7, 3), np.uint8)
    path = _save(tmp_path / f"a{suffix}", pixels)
    content = path.read_bytes()
    for end in range(0, len(content) - 30, 7):
        path.write_bytes(content[:end])
        with pytest.raises(FileError, match=path.name):
            read_volume(path)


def _manifest():
    if not ROBUSTNESS.is_dir():
        skip = pytest.mark.skip(reason=f"{ROBUSTNESS} does not exist")
        return [pytest.param("", "", marks=skip)]
    with (ROBUSTNESS / "manifest.csv").open(encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["kind"] == "2d"]
    return [pytest.param(row["file"], row["expected"], id=Path(row["file"]).name) for row in rows]


@pytest.mark.parametrize(("file", "expected"), _manifest())
def test_behaves_as_its_manifest_says(shared, file, expected):
    """Lossy and inverted masks load with their numbers: label sets judge those."""
    path = shared / "data" / "robustness" / file
    mask = "mask" in path.name
    volume, error = _read(path, read_labels if mask else read_volume)
    if error is not None:
        assert isinstance(error, FileError)
        assert expected == "error" or "or clear error" in expected
        return
    assert expected != "error"
    assert (volume.unit, volume.orientation) == ("px", "LP")
    assert volume.num_channels == (1 if mask or "grey" in path.name or "named" in path.name else 3)


def test_the_same_mask_in_another_guise_is_the_same_mask(shared):
    folder = shared / "data" / "robustness" / "synthetic_2d"
    mask = read_labels(folder / "00_ok_mask.png")
    lesion = mask.array == 255
    for name, value in [
        ("16_png_named_jpg.jpg", 255),
        ("21_mask_01.png", 1),
        ("22_mask_rgb.png", 255),
        ("23_mask_1bit.png", 1),
        ("27_mask_palette.png", 1),
    ]:
        np.testing.assert_array_equal(read_labels(folder / name).array, lesion * value)
    small = read_labels(folder / "24_mask_halfsize.png")
    with pytest.raises(GeometryError, match="160 x 120 and 80 x 60"):
        check_same_grid(mask.affine, mask.spatial_shape, small.affine, small.spatial_shape, "pair")


def test_the_same_picture_in_another_guise_is_the_same_picture(shared):
    folder = shared / "data" / "robustness" / "synthetic_2d"
    picture = read_volume(folder / "08.bmp").array.astype(int)
    for name in ("02_rgba.png", "09.tif"):
        np.testing.assert_array_equal(read_volume(folder / name).array, picture)
    for name, coarseness in [("00_ok.jpg", 8), ("03_palette.png", 20), ("04_cmyk.jpg", 8)]:
        assert np.abs(read_volume(folder / name).array - picture).mean() < coarseness
    turned = read_volume(folder / "07_exif_rot6.jpg").array
    assert np.abs(turned.T - np.rot90(picture.T, -1)).mean() < 8


def test_a_mask_of_two_values_survives_jpeg(tmp_path):
    mask = np.zeros((40, 40), np.uint8)
    mask[8:31, 13:35] = 255
    Image.fromarray(mask).save(tmp_path / "mask.jpg", quality=60)
    found = read_labels(tmp_path / "mask.jpg").array[0].T
    np.testing.assert_array_equal(found, mask)
