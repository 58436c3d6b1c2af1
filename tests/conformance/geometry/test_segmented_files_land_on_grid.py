"""From a scan's file to its segmentation's, of every format, read again by others than Lamina."""

import itertools
import json
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from known_phantom import (
    AT_LEAST,
    LIVER,
    MIDDLE,
    SEEN,
    assert_lands,
    dices,
    predictor,
    scan,
    scanned,
)
from PIL import Image

from lamina.errors import DatasetError
from lamina.folders.model import Model
from lamina.geometry import corner_distance
from lamina.io import read_labels, read_volume, write_volume
from lamina.workflows import predict as workflow


@pytest.fixture
def segment(monkeypatch, tmp_path):
    """Segment a file with the network that knows; return what was written, all went well."""

    def run(path, spatial_dims=3):
        unit = "px" if spatial_dims == 2 else "mm"
        spacing = (6.0, 5.5, 6.5)[:spatial_dims]
        chosen = predictor("SPL"[-spatial_dims:], spacing, unit=unit)
        model = Model(SimpleNamespace(plan=chosen.plan, training={}), chosen)
        monkeypatch.setattr(workflow, "load", lambda *_, **__: model)
        (tmp_path / "model.lamina").write_bytes(b"stands for a bundle")
        done = workflow.predict(tmp_path / "model.lamina", path, out=tmp_path / "out")
        assert not done.failures
        (outcome,) = done.outcomes
        assert {p.name for p in (tmp_path / "out").iterdir()} == {
            "prediction.json",
            outcome.segmentation,
        }
        return tmp_path / "out" / outcome.segmentation

    return run


def write_slice(path, values, affine):
    """Write ``(C, i, j)`` of 8 bits as one slice of DICOM, where its first voxel's affine says."""
    pydicom = pytest.importorskip("pydicom")
    uid = pydicom.uid
    header = pydicom.Dataset()
    header.SOPClassUID, header.SOPInstanceUID = uid.CTImageStorage, uid.generate_uid()
    header.SeriesInstanceUID, header.Modality = "2.25.7", "CT"
    if affine is not None:
        across, down, through = (affine[:3, :3] * np.array([[-1], [-1], [1]])).T
        spacing = np.linalg.norm([across, down, through], axis=1)
        header.ImagePositionPatient = (affine[:3, 3] * (-1, -1, 1)).round(9).tolist()
        header.ImageOrientationPatient = [*(across / spacing[0]), *(down / spacing[1])]
        header.PixelSpacing = [spacing[1], spacing[0]]
        header.SliceThickness = spacing[2]
    header.SamplesPerPixel, header.PhotometricInterpretation = len(values), "RGB"
    header.PlanarConfiguration, header.PixelRepresentation = 0, 0
    header.Columns, header.Rows = values.shape[1:]
    header.BitsAllocated, header.BitsStored, header.HighBit = 8, 8, 7
    header.PixelData = np.ascontiguousarray(values.T).tobytes()
    header["PixelData"].VR = "OB"
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    header.save_as(path, enforce_file_format=True)


def assert_others_agree(path, image, truth):
    assert_lands(read_labels(path), image, truth)
    theirs = sitk.ReadImage(path)
    assert dices(sitk.GetArrayFromImage(theirs).T, truth).min() > AT_LEAST
    ends = list(itertools.product(*[(0, size - 1) for size in image.spatial_shape]))
    there = np.array([theirs.TransformIndexToPhysicalPoint(end) for end in ends])
    np.testing.assert_allclose(there * (-1, -1, 1), image.corners, atol=1e-3)
    if path.name.endswith((".nii", ".nii.gz")):
        affine = nibabel.load(path).affine
        assert corner_distance(affine, truth.shape, image.affine, truth.shape) < 1e-3


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("orientation", ["RAS", "LPS", "LAI", "SPR", "PIR"])
def test_volumes(segment, tmp_path, suffix, orientation):
    image, truth = scanned(orientation, (5, 6, 7), (20, -15, 10))
    write_volume(image, tmp_path / f"scan{suffix}")
    path = segment(tmp_path / f"scan{suffix}")
    assert path.name == f"scan{suffix}"
    assert_others_agree(path, image, truth)


@pytest.mark.parametrize(("suffix", "written"), [(".nhdr", ".nrrd"), (".mhd", ".mha")])
def test_volumes_of_two_files(segment, tmp_path, suffix, written):
    image, truth = scanned("PIR", (5, 6, 7), (20, -15, 10))
    write_volume(image, tmp_path / f"whole{written}")
    theirs = sitk.ReadImage(tmp_path / f"whole{written}")
    sitk.WriteImage(theirs, tmp_path / f"scan{suffix}")
    path = segment(tmp_path / f"scan{suffix}")
    assert path.name == f"scan{written}"
    assert_others_agree(path, image, truth)


def test_arrays(segment, tmp_path):
    image, _ = scanned("LSP", (5, 6, 7))
    np.save(tmp_path / "scan.npy", np.moveaxis(image.array, 0, -1))
    entries = {"spacing": image.spacing, "orientation": "LSP", "channels_first": False}
    (tmp_path / "scan.json").write_text(json.dumps(entries))
    placed = read_volume(tmp_path / "scan.npy")
    truth = sum(value * (placed.array[i] > 0) for i, value in enumerate(SEEN.values()))
    path = segment(tmp_path / "scan.npy")
    assert path.name == "scan.nii.gz"
    assert_others_agree(path, placed, truth)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".jpg"])
@pytest.mark.parametrize("shape", [(211, 160), (1, 150), (230, 1)])
def test_pictures(segment, tmp_path, suffix, shape):
    """The scan is drawn with a colour per structure, rows from the top."""
    affine = np.diag([-1.0, -1, 1, 1])
    affine[:3, 3] = MIDDLE + ((np.array([*shape, 1]) - 1) / 2) * (1, 1, 0)
    image, truth = scan(affine, shape)
    Image.fromarray(image.array.T).save(tmp_path / f"scan{suffix}", quality=95)
    path = segment(tmp_path / f"scan{suffix}", 2)
    assert path.suffix == {".jpg": ".png"}.get(suffix, suffix)
    placed = read_volume(tmp_path / f"scan{suffix}")
    assert_lands(read_labels(path), placed, truth)
    assert dices(np.array(Image.open(path)).T, truth).min() > AT_LEAST


def test_single_slices_of_dicom(segment, tmp_path):
    image, truth = scanned("LPS", (5, 6, 7), (0, 0, 15), (60, 45, 1), middle=LIVER)
    write_slice(tmp_path / "slice.dcm", image.array[..., 0], image.affine)
    path = segment(tmp_path / "slice.dcm")
    assert path.name == "slice.nii.gz"
    assert_others_agree(path, image, truth)


def test_folders_of_dicom_slices_are_one_scan(segment, tmp_path):
    image, truth = scanned("LPS", (5, 6, 7), (10, -5, 15))
    (tmp_path / "series").mkdir()
    for k in range(truth.shape[2]):
        there = image.affine.copy()
        there[:3, 3] = image.affine[:3] @ (0, 0, k, 1)
        write_slice(tmp_path / "series" / f"{-k % 7}-{k}.dcm", image.array[..., k], there)
    path = segment(tmp_path / "series")
    assert path.name == "series.nii.gz"
    assert_others_agree(path, image, truth)


def test_pictures_of_dicom(segment, tmp_path):
    affine = np.diag([-1.0, -1, 1, 1])
    affine[:3, 3] = MIDDLE + (105, 80, 0)
    image, truth = scan(affine, (211, 160))
    write_slice(tmp_path / "scan.dcm", image.array, None)
    path = segment(tmp_path / "scan.dcm", 2)
    assert path.name == "scan.png"
    assert_lands(read_labels(path), read_volume(tmp_path / "scan.dcm"), truth)


def test_two_scans_never_share_a_segmentation(segment, tmp_path):
    image, _ = scanned("RAS", (20, 20, 20))
    (tmp_path / "in").mkdir()
    write_volume(image, tmp_path / "in" / "scan.mha")
    sitk.WriteImage(sitk.ReadImage(tmp_path / "in" / "scan.mha"), tmp_path / "in" / "scan.mhd")
    with pytest.raises(DatasetError, match=r"scan\.mhd: is called scan, as \S*scan\.mha is"):
        segment(tmp_path / "in")
