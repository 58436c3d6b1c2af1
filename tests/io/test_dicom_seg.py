"""Segments that highdicom and dcmqi wrote lie in the patient where they were drawn."""

import numpy as np
import pytest

from dicom_scans import AXIAL, OBLIQUE, ball, middle, places, save, write_seg, write_series
from lamina.errors import FileError, GeometryError
from lamina.io import read_labels, read_volume
from lamina.io.structures import describe, has_structures, read_structures

pydicom = pytest.importorskip("pydicom")
hd = pytest.importorskip("highdicom")

KINDS = ("BINARY", "FRACTIONAL", "LABELMAP")


def masks(path, image):
    return dict(read_structures(path, image))


def points(mask, image):
    """Return the marked voxels' places in LPS mm, sorted."""
    ras = np.argwhere(mask) @ image.affine[:3, :3].T + image.affine[:3, 3]
    return rows(ras * [-1, -1, 1])


def rows(where):
    rounded = np.round(where, 3) + 0.0
    return rounded[np.lexsort(rounded.T)]


def drawn_points(slices, planes):
    return rows(np.concatenate([places(one)[p] for one, p in zip(slices, planes, strict=True)]))


@pytest.fixture(
    params=[AXIAL, -AXIAL, OBLIQUE, AXIAL[::-1]], ids=["axial", "-axial", "oblique", "ji"]
)
def scan(request, tmp_path):
    slices = write_series(tmp_path / "ct", request.param)
    return tmp_path, slices, read_volume(tmp_path / "ct")


@pytest.mark.parametrize("kind", KINDS)
def test_segments_lie_where_they_were_drawn(scan, kind):
    folder, slices, image = scan
    centre = middle(slices)
    drawn = {
        "liver": ball(slices, centre, 8),
        "lesion": ball(slices, centre + np.array([3, 13, 2]), 4),
    }
    write_seg(folder / "seg.dcm", slices, drawn, kind)
    found = masks(folder / "seg.dcm", image)
    assert list(found) == list(drawn)
    for name, planes in drawn.items():
        np.testing.assert_allclose(
            points(found[name], image), drawn_points(slices, planes), atol=0.002
        )
    # The ball's own middle and size, of which voxels are an approximation
    liver = points(found["liver"], image)
    np.testing.assert_allclose(liver.mean(axis=0), centre, atol=0.3)
    assert len(liver) * np.prod(image.spacing) == pytest.approx(4 / 3 * np.pi * 8**3, rel=0.05)
    assert np.ptp(liver, axis=0).max() <= 16


@pytest.mark.parametrize("kind", KINDS)
def test_left_out_frames_are_empty(scan, kind):
    folder, slices, image = scan
    low, high = ball(slices, middle(slices), 8), ball(slices, middle(slices), 8)
    low[4:], high[:9] = False, False
    seg = write_seg(folder / "seg.dcm", slices, {"two parts": low | high}, kind)
    assert seg.NumberOfFrames < len(slices)
    (found,) = masks(folder / "seg.dcm", image).values()
    np.testing.assert_allclose(points(found, image), drawn_points(slices, low | high), atol=0.002)


@pytest.mark.parametrize("kind", KINDS)
def test_reads_as_highdicom_does(scan, kind):
    folder, slices, image = scan
    write_seg(folder / "seg.dcm", slices, {"liver": ball(slices, middle(slices), 8)}, kind)
    volume = hd.seg.segread(folder / "seg.dcm").get_volume(combine_segments=True)
    theirs = np.argwhere(volume.array) @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    np.testing.assert_allclose(
        points(masks(folder / "seg.dcm", image)["liver"], image), rows(theirs), atol=0.002
    )


def test_frames_follow_slices_that_are_not_quite_even(tmp_path):
    slices = write_series(tmp_path / "ct")
    for number, one in enumerate(slices):
        one.ImagePositionPatient[2] += 0.1 * (number == 4)
        save(one, tmp_path / "ct" / f"IM{(7 * number) % 12:04d}")
    planes = ball(slices, middle(slices), 8)
    write_seg(tmp_path / "seg.dcm", slices, {"liver": planes})
    found = masks(tmp_path / "seg.dcm", read_volume(tmp_path / "ct"))["liver"]
    np.testing.assert_array_equal(found.T, planes)


def test_overlapping_segments_stay_apart(tmp_path):
    slices = write_series(tmp_path / "ct")
    whole, core = ball(slices, middle(slices), 8), ball(slices, middle(slices), 4)
    write_seg(tmp_path / "seg.dcm", slices, {"whole": whole, "core": core})
    found = masks(tmp_path / "seg.dcm", read_volume(tmp_path / "ct"))
    np.testing.assert_array_equal(found["whole"].T, whole)
    np.testing.assert_array_equal(found["core"].T, core)


def test_fractions_count_from_half_on(tmp_path):
    slices = write_series(tmp_path / "ct")
    share = np.zeros((12, 20, 24))
    share[3, 4, 5:9] = 0.2, 0.49, 0.51, 1
    write_seg(tmp_path / "seg.dcm", slices, {"liver": share}, "FRACTIONAL")
    found = masks(tmp_path / "seg.dcm", read_volume(tmp_path / "ct"))["liver"]
    assert np.argwhere(found).tolist() == [[7, 4, 3], [8, 4, 3]]


def test_colours_of_a_label_map_are_not_its_values(tmp_path):
    slices = write_series(tmp_path / "ct")
    planes = ball(slices, middle(slices), 8)
    seg = write_seg(tmp_path / "seg.dcm", slices, {"liver": planes}, "LABELMAP")
    seg.PhotometricInterpretation = "PALETTE COLOR"
    for colour in ("Red", "Green", "Blue"):
        setattr(seg, f"{colour}PaletteColorLookupTableDescriptor", [2, 0, 16])
        setattr(seg, f"{colour}PaletteColorLookupTableData", np.uint16([7, 60000]).tobytes())
    seg.save_as(tmp_path / "seg.dcm")
    found = masks(tmp_path / "seg.dcm", read_volume(tmp_path / "ct"))["liver"]
    np.testing.assert_array_equal(found.T, planes)


def test_frames_may_cover_a_part_of_the_image(tmp_path):
    write_series(tmp_path / "ct")
    part = write_series(
        tmp_path / "part", size=(9, 8, 4), origin=(-10 + 2 * 5, 20 + 1.5 * 6, 30 + 2.5 * 3)
    )
    write_seg(tmp_path / "seg.dcm", part, {"liver": np.ones((4, 8, 9), bool)})
    found = masks(tmp_path / "seg.dcm", read_volume(tmp_path / "ct"))["liver"]
    assert found.shape == (24, 20, 12)
    assert found.sum() == 4 * 8 * 9
    assert found[5:14, 6:14, 3:7].all()


@pytest.mark.parametrize(
    ("tags", "fault"),
    [
        (
            {"origin": (-10, 20, 31.2)},
            r"frame 1 has other voxels than .*ct: .* up to 1.2 mm beside",
        ),
        ({"origin": (-9, 20, 30)}, "frame 1 has other voxels"),
        ({"PixelSpacing": [1.5, 1.0]}, "frame 1 has other voxels"),
        ({"orientation": OBLIQUE}, "frame 1 has other voxels"),
        ({"origin": (90, 20, 30)}, "frame 1 marks voxels beyond .*ct"),
    ],
)
def test_a_segmentation_of_another_grid_is_refused(tmp_path, tags, fault):
    write_series(tmp_path / "ct")
    other = write_series(tmp_path / "other", **tags)
    write_seg(tmp_path / "seg.dcm", other, {"liver": np.ones((12, 20, 24), bool)})
    with pytest.raises(GeometryError, match=fault) as caught:
        masks(tmp_path / "seg.dcm", read_volume(tmp_path / "ct"))
    assert "seg.dcm" in caught.value.message
    assert caught.value.remedy


def test_a_damaged_segmentation_is_one_error(tmp_path):
    slices = write_series(tmp_path / "ct")
    seg = write_seg(tmp_path / "seg.dcm", slices, {"liver": ball(slices, middle(slices), 8)})
    image, path = read_volume(tmp_path / "ct"), tmp_path / "seg.dcm"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(FileError, match="DICOM data are wrong"):
        masks(path, image)
    seg.SegmentSequence[0].SegmentNumber = 3
    seg.save_as(path)
    with pytest.raises(FileError, match=r"segments that it does not describe: \['1'\]") as caught:
        masks(path, image)
    assert "Nobody" not in str(caught.value)
    assert "ID-4711" not in str(caught.value)


def test_what_is_no_segmentation_is_told_apart(tmp_path):
    slices = write_series(tmp_path / "ct")
    write_seg(tmp_path / "no suffix", slices, {"liver": ball(slices, middle(slices), 8)})
    assert has_structures(tmp_path / "no suffix")
    assert not has_structures(tmp_path / "ct" / "IM0000")
    (tmp_path / "text").write_text("x")
    assert not has_structures(tmp_path / "text")
    with pytest.raises(FileError, match="marks no structures"):
        masks(tmp_path / "ct" / "IM0000", read_volume(tmp_path / "ct"))


def test_segmentations_tell_what_they_mark_and_where(tmp_path):
    slices = write_series(tmp_path / "ct")
    planes = ball(slices, middle(slices), 8)
    seg = write_seg(tmp_path / "seg.dcm", slices, {"liver": planes, "a b": planes[::-1]})
    told = describe(seg, tmp_path / "seg.dcm")
    assert told.names == ("liver", "a b")
    assert told.series == (slices[0].SeriesInstanceUID,)
    assert told.frames_of_reference == (slices[0].FrameOfReferenceUID,)
    assert describe(slices[0], tmp_path) is None


@pytest.mark.parametrize(
    ("seg", "series", "labels"),
    [
        ("liver.dcm", "ct-3slice", ["liver_seg"]),
        ("partial_overlaps.dcm", "ct-3slice", [f"partial_overlaps-{n}" for n in (1, 2, 3)]),
        ("24x38x3/seg/label.seg", "24x38x3/image", ["24x38x3/nrrd/label"]),
        ("23x38x3/seg/label.seg", "23x38x3/multiframe", ["23x38x3/nrrd/label"]),
        ("sparse-labelmap-noppv.dcm", "24x38x3/image", ["sparse_labelmap_noppv_seg"]),
        ("sparse-labelmap-ppv5.dcm", "24x38x3/image", ["sparse_labelmap_ppv5_seg"]),
    ],
)
def test_dcmqi_files_equal_the_label_maps_beside_them(shared, seg, series, labels):
    folder = shared / "data" / "robustness" / "dcmqi"
    image = read_volume(folder / series)
    maps = [read_labels(folder / f"{name}.nrrd") for name in labels]
    for number, mask in enumerate(masks(folder / seg, image).values(), start=1):
        (expected,) = [label for label in maps if (label.array == number).any()]
        np.testing.assert_allclose(
            points(mask, image), points(expected.array[0] == number, expected), atol=0.002
        )


def test_highdicom_files_are_read_or_refused(shared):
    folder = shared / "data" / "robustness" / "highdicom"
    image = read_volume(folder / "ct_image.dcm")
    (mask,) = masks(folder / "seg_image_ct_binary_single_frame.dcm", image).values()
    stored = pydicom.dcmread(folder / "seg_image_ct_binary_single_frame.dcm").pixel_array
    np.testing.assert_array_equal(mask[..., 0].T, stored > 0)
    refused = sorted(folder.glob("seg_image_sm_*")) + [folder / "seg_image_cr_binary.dcm"]
    assert len(refused) == 7
    for path in refused:
        with pytest.raises(GeometryError, match=f"{path.name}: .*where"):
            masks(path, image)
