"""Fixtures that tests of several workflows ask for."""

from pathlib import Path

import pytest

from lamina.files import read_json, write_json
from lamina.io import read_volume, write_volume
from lamina.workflows.prepare import prepare


@pytest.fixture(scope="session")
def slanted_work(tiny_dataset, tmp_path_factory) -> Path:
    """The tiny scans, leaning, prepared to be resampled; two of them are kept for the end.

    Read only: copy it to change it.
    """
    dataset = tmp_path_factory.mktemp("slanted") / "Task01_Slanted"
    for file in sorted(tiny_dataset.rglob("*.nii.gz")):
        scan = read_volume(file)
        scan.affine[0, 2] = 0.5
        write_volume(scan, dataset / file.relative_to(tiny_dataset))
    header = read_json(tiny_dataset / "dataset.json")
    write_json(dataset / "dataset.json", header | {"name": "Slanted"})
    work = dataset.parent / "work"
    options = {"ram_bytes": 4e9, "num_folds": 2, "workers": 0, "rehearse": False}
    found = prepare(dataset, work, resample_oblique=True, **options)
    assert not found.excluded
    ids = sorted(path.name for path in (work / "cases").iterdir())
    folds = [{"train": ids[2:4], "val": ids[:2]}, {"train": ids[:2], "val": ids[2:4]}]
    write_json(work / "splits.json", [fold | {"test": ids[4:]} for fold in folds])
    return work
