"""Other software accepts what is written: dciodvfy judges it, dcmqi reads it back."""

import json
import shutil
import subprocess

import numpy as np
import pytest

from dicom_scans import OBLIQUE, ball, middle, write_enhanced, write_series
from lamina.io import read_volume
from lamina.io.derived import Producer, Pseudonyms, write_structures
from lamina.labels import LabelSet
from lamina.volume import Volume

pytest.importorskip("highdicom")

LABELS = LabelSet(values={"liver": 3, "left kidney": 5, "lesion": 9})
WITH_REGION = LabelSet(values=LABELS.values, regions={"both": ("liver", "lesion")})


def program(name, package):
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed ({package})")
    return found


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def written(folder, kind, labels=WITH_REGION, enhanced=False, empty=False, **options):
    slices = write_series(folder / "parts", OBLIQUE)
    scan = folder / "parts"
    if enhanced:
        scan = folder / "one.dcm"
        write_enhanced(scan, slices)
    label = np.zeros((12, 20, 24), np.uint8)
    if not empty:
        label[ball(slices, middle(slices), 8)] = 3
        label[ball(slices, middle(slices) + np.array([1, 2, 0]), 3)] = 9
    image = read_volume(scan)
    path = folder / f"{kind}.dcm"
    producer = Producer(name="Lamina", version="0.1.0", model="f" * 64)
    write_structures(
        Volume(label.T[None], image.affine, "segmentation"),
        labels,
        path,
        kind=kind,
        scan=scan,
        producer=producer,
        **options,
    )
    return path, label, image


@pytest.mark.parametrize("kind", ["seg", "rtstruct"])
@pytest.mark.parametrize("case", [{}, {"enhanced": True}, {"empty": True}], ids=str)
@pytest.mark.parametrize("pseudonyms", [None, Pseudonyms()], ids=["named", "anonymised"])
def test_dciodvfy_finds_no_fault(tmp_path, kind, case, pseudonyms):
    dciodvfy = program("dciodvfy", "dicom3tools of Debian")
    path, _, _ = written(tmp_path, kind, pseudonyms=pseudonyms, **case)
    told = run(dciodvfy, "-new", str(path)).stderr.splitlines()
    assert told.pop() == {"seg": "Segmentation", "rtstruct": "RTStructureSet"}[kind]
    # That dates and times of the visit are empty is what anonymising means.
    allowed = "would be needed to build DICOMDIR" if pseudonyms else "nothing"
    assert [line for line in told if allowed not in line] == []


@pytest.mark.parametrize("kind", ["seg", "labelmap"])
def test_dcmqi_reads_the_same_structures_at_the_same_places(tmp_path, kind):
    reader = program("segimage2itkimage", "pip install dcmqi")
    path, label, image = written(tmp_path, kind, LABELS)
    result = run(
        *(reader, "--inputDICOM", str(path), "--outputDirectory", str(tmp_path)),
        *("--outputType", "nii", "--prefix", "read", "--mergeSegments"),
    )
    assert result.returncode == 0, result.stderr
    told = json.loads((tmp_path / "read-meta.json").read_text())["segmentAttributes"]
    segments = {one["labelID"]: one for one in (one for group in told for one in group)}
    assert [one["SegmentLabel"] for one in segments.values()] == list(LABELS.values)
    kidney = segments[2]["SegmentedPropertyTypeModifierCodeSequence"]
    assert kidney["CodeMeaning"] == "Left"
    read = read_volume(tmp_path / "read-1.nii.gz")
    for number, value in enumerate(LABELS.values.values(), start=1):
        theirs = np.argwhere(read.array[0] == number) @ read.affine[:3, :3].T
        ours = np.argwhere(value == label.T) @ image.affine[:3, :3].T
        assert len(theirs) == len(ours)
        theirs, ours = theirs + read.affine[:3, 3], ours + image.affine[:3, 3]
        np.testing.assert_allclose(ordered(theirs), ordered(ours), atol=2e-3)


def ordered(points):
    rounded = np.round(points, 2) + 0.0
    return points[np.lexsort(rounded.T)]
