"""Contours are filled where they were drawn, holes and all."""

import logging
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_scans import AXIAL, OBLIQUE, ball, middle, rings, write_rtstruct, write_series
from lamina.errors import FileError, GeometryError
from lamina.io import read_volume
from lamina.io.rtstruct import fill_plane
from lamina.io.structures import describe, read_structures

pydicom = pytest.importorskip("pydicom")

SQUARE = np.array([(2, 3), (6, 3), (6, 8), (2, 8)], float)


def masks(path, image):
    return dict(read_structures(path, image))


def square(slices, number, low, high):
    """Return a square of a slice, given by two corners in columns and rows."""
    one = slices[number]
    across, down = np.reshape(one.ImageOrientationPatient, (2, 3)).astype(float)
    (left, top), (right, bottom) = low, high
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    start = np.array(one.ImagePositionPatient, float)
    return np.array([start + 2.0 * x * across + 1.5 * y * down for x, y in corners])


@pytest.fixture(
    params=[AXIAL, -AXIAL, OBLIQUE, AXIAL[::-1]], ids=["axial", "-axial", "oblique", "ji"]
)
def scan(request, tmp_path):
    slices = write_series(tmp_path / "ct", request.param)
    return tmp_path / "rt.dcm", slices, read_volume(tmp_path / "ct")


@pytest.mark.parametrize("backwards", [False, True])
def test_a_ball_lies_where_it_was_drawn(scan, backwards):
    path, slices, image = scan
    centre = middle(slices) + 0.3
    write_rtstruct(path, slices, {"ball": rings(slices, centre, 8, backwards)[::-1]})
    mask = masks(path, image)["ball"]
    lps = (np.argwhere(mask) @ image.affine[:3, :3].T + image.affine[:3, 3]) * [-1, -1, 1]
    assert (np.linalg.norm(lps - centre, axis=1) <= 8).all()
    assert mask.sum() == pytest.approx(ball(slices, centre, 8).sum(), abs=1)
    np.testing.assert_allclose(lps.mean(axis=0), centre, atol=0.4)
    assert mask.sum() * np.prod(image.spacing) == pytest.approx(4 / 3 * np.pi * 8**3, rel=0.07)


def test_a_contour_within_another_is_a_hole(scan):
    path, slices, image = scan
    centre = middle(slices)
    shell = rings(slices, centre, 8) + rings(slices, centre, 4)
    write_rtstruct(path, slices, {"shell": shell, "core": rings(slices, centre, 4)})
    found = masks(path, image)
    write_rtstruct(path, slices, {"whole": rings(slices, centre, 8)})
    whole = masks(path, image)["whole"]
    assert found["core"].any()
    np.testing.assert_array_equal(found["shell"], whole & ~found["core"])


def test_a_keyhole_is_a_hole(scan):
    path, slices, image = scan
    outer, inner = square(slices, 5, (2, 2), (15, 15)), square(slices, 5, (6, 6), (11, 11))
    keyhole = np.concatenate([outer, outer[:1], inner, inner[:1]])
    write_rtstruct(path, slices, {"keyhole": [keyhole], "two": [outer, inner]})
    found = masks(path, image)
    assert found["two"].sum() == 13 * 13 - 5 * 5
    np.testing.assert_array_equal(found["keyhole"], found["two"])


def test_a_contour_drawn_twice_is_one(scan):
    path, slices, image = scan
    once = square(slices, 5, (2.5, 2.5), (9.5, 9.5))
    write_rtstruct(path, slices, {"once": [once], "twice": [once, once]})
    found = masks(path, image)
    assert found["once"].sum() == 49
    np.testing.assert_array_equal(found["twice"], found["once"])


def test_neighbours_with_a_common_edge_share_no_voxel_and_leave_none(scan):
    path, slices, image = scan
    left, right = square(slices, 5, (2, 2), (7, 9)), square(slices, 5, (7, 2), (12, 9))
    both = square(slices, 5, (2, 2), (12, 9))
    write_rtstruct(path, slices, {"left": [left], "right": [right], "both": [both]})
    found = masks(path, image)
    assert [found[name].sum() for name in ("left", "right", "both")] == [35, 35, 70]
    np.testing.assert_array_equal(found["left"] ^ found["right"], found["both"])


def test_contours_of_one_slice_stay_in_it(scan):
    path, slices, image = scan
    write_rtstruct(path, slices, {"flat": [square(slices, 3, (4.5, 4.5), (8.5, 10.5))]})
    index = np.argwhere(masks(path, image)["flat"])
    place = (index @ image.affine[:3, :3].T + image.affine[:3, 3]) * [-1, -1, 1]
    np.testing.assert_allclose(
        place.mean(axis=0), square(slices, 3, (6.5, 7.5), (6.5, 7.5))[0], atol=1e-4
    )
    assert len(index) == 4 * 6


def test_points_and_open_lines_are_left_out(scan, caplog):
    path, slices, image = scan
    closed = square(slices, 5, (2.5, 2.5), (9.5, 9.5))
    rois = {
        "isocentre": [("POINT", closed[:1])],
        "mixed": [closed, ("OPEN_PLANAR", closed[:3])],
        "empty": [],
    }
    header = write_rtstruct(path, slices, rois)
    with caplog.at_level(logging.WARNING):
        found = masks(path, image)
    assert list(found) == ["mixed"]
    assert found["mixed"].sum() == 49
    assert [text.partition(": ")[2] for text in caplog.messages] == [
        f"{name!r}: 1 contours are no closed lines and left out." for name in ("isocentre", "mixed")
    ]
    assert describe(header, path).names == ("mixed",)


def test_slices_without_a_contour_stay_empty_and_are_told(scan, caplog):
    path, slices, image = scan
    write_rtstruct(
        path, slices, {"gap": [square(slices, n, (2.5, 2.5), (9.5, 9.5)) for n in (2, 5)]}
    )
    assert masks(path, image)["gap"].sum() == 2 * 49
    assert "has no contour in 2 slices between its ends" in caplog.text


def test_what_lies_beside_the_image_is_cut_off(scan):
    path, slices, image = scan
    write_rtstruct(path, slices, {"wide": [square(slices, 5, (-9, -9), (99, 3.5))]})
    assert masks(path, image)["wide"].sum() == 24 * 4


def test_contours_between_or_beyond_slices_are_refused(scan):
    path, slices, image = scan
    flat = square(slices, 5, (2.5, 2.5), (9.5, 9.5))
    normal = np.cross(flat[1] - flat[0], flat[2] - flat[1])
    normal /= np.linalg.norm(normal)
    for shift, fault in ((1.2, "0.48 slices beside one"), (50, "beyond the slices")):
        write_rtstruct(path, slices, {"liver": [flat + shift * normal]})
        with pytest.raises(GeometryError, match=f"'liver' has a contour {fault} of .*ct") as caught:
            masks(path, image)
        assert caught.value.remedy
    standing = np.stack([flat[0], flat[1], flat[1] + 9 * normal + 2 * (flat[3] - flat[0])])
    write_rtstruct(path, slices, {"liver": [standing, flat]})
    with pytest.raises(GeometryError, match="slices beside one"):
        masks(path, image)


def test_damage_is_one_error(scan):
    path, slices, image = scan
    header = write_rtstruct(path, slices, {"liver": [square(slices, 5, (2, 2), (9, 9))]})
    drawn = header.ROIContourSequence[0].ContourSequence[0]
    drawn.ContourData = drawn.ContourData[:-1]
    header.save_as(path)
    with pytest.raises(FileError, match="DICOM data are wrong: cannot reshape"):
        masks(path, image)
    header.ROIContourSequence[0].ReferencedROINumber = 9
    header.save_as(path)
    with pytest.raises(FileError, match="does not describe its ROI 9"):
        masks(path, image)


def test_contours_tell_what_they_mark_and_where(scan):
    path, slices, _ = scan
    header = write_rtstruct(path, slices, {"liver ": [square(slices, 5, (2, 2), (9, 9))]})
    told = describe(header, path)
    assert (told.kind, told.names) == ("rtstruct", ("liver",))
    assert told.series == (slices[0].SeriesInstanceUID,)
    assert told.frames_of_reference == (slices[0].FrameOfReferenceUID,)


def test_centres_on_lower_edges_are_inside_and_on_upper_edges_are_not():
    inside = fill_plane([SQUARE], (10, 12))
    assert inside[2:6, 3:8].all()
    assert inside.sum() == 4 * 5


def test_centres_on_slanted_lower_edges_are_inside():
    for size in range(1, 60):
        inside = fill_plane([np.array([(0, 0), (size, size), (size, 0)], float)], (size, size))
        assert np.diagonal(inside).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.floats(-3, 12), st.floats(-3, 12)), min_size=3, max_size=9),
    st.integers(0, 8),
)
def test_odd_numbers_of_turns_are_inside(corners, start):
    """Compared by winding number modulo 2, away from the line itself."""
    points = np.array(corners)
    inside = fill_plane([points], (9, 10))
    np.testing.assert_array_equal(inside, fill_plane([np.roll(points, start, axis=0)], (9, 10)))
    np.testing.assert_array_equal(inside, fill_plane([points[::-1]], (9, 10)))
    turns, distance = _turns(points, (9, 10))
    clear = distance > 1e-3
    np.testing.assert_array_equal(inside[clear], turns[clear] % 2 == 1)


def _turns(points, shape):
    """Return by angles how often a polygon goes round each pixel, and how far off its line is."""
    pixels = np.stack(np.indices(shape), axis=-1)[:, :, None].astype(float)
    a, b = points - pixels, np.roll(points, -1, axis=0) - pixels
    cross = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    angle = np.arctan2(cross, (a * b).sum(axis=-1)).sum(axis=-1)
    edge = b - a
    length = np.maximum((edge**2).sum(axis=-1), 1e-12)
    share = np.clip(-(a * edge).sum(axis=-1) / length, 0, 1)
    distance = np.linalg.norm(a + share[..., None] * edge, axis=-1).min(axis=-1)
    return np.abs(np.rint(angle / (2 * np.pi))), distance


def test_contours_of_many_long_edges_take_little_memory():
    """Each edge crosses the whole plane: drawn at once, they would take some 80 MB."""
    number = np.arange(6000)
    zigzag = np.stack([number % 180 + 0.5, np.where(number % 2, 0.2, 198.7)], axis=1)
    tracemalloc.start()
    fill_plane([zigzag], (200, 200))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6
