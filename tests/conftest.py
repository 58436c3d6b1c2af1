"""Fixtures that every test may ask for."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lamina.files import read_json, write_json
from lamina.io import write_volume
from lamina.volume import Volume

SHARED = Path(__file__).resolve().parents[2] / "shared"

# Torch reads it when it is first imported, here and in the processes that tests start. Tensors of
# tests are so small that several threads mostly wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The promise of equal weights is for a CPU; tests must not take a GPU that happens to be there.
os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_addoption(parser: pytest.Parser) -> None:
    """How many odd scans are predicted on (200 for a release), and where Slicer's client is."""
    parser.addoption("--odd-scans", dest="odd_scans", type=int, default=40)
    parser.addoption("--slicer-client", dest="slicer_client", help="MONAILabelLib/client.py")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real scans and specifications beside the checkout."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"real scans are not at hand: {SHARED / 'data'} does not exist")
    return SHARED


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory) -> Path:
    """Six scans of two bright balls, 32x32x16 voxels of 1x1x2 mm, as the Decathlon lays them out.

    Read only: every test that asks for it shares it.
    """
    folder = tmp_path_factory.mktemp("tiny") / "Task00_Tiny"
    names = [f"ball_{number:03d}.nii.gz" for number in range(6)]
    for number, name in enumerate(names):
        image, label = _balls(number)
        write_volume(image, folder / "imagesTr" / name)
        write_volume(label, folder / "labelsTr" / name)
    pairs = [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names]
    header = {
        "name": "Tiny",
        "licence": "CC0",
        "modality": {"0": "MR"},
        "labels": {"0": "background", "3": "large", "7": "small"},
        "training": pairs,
    }
    write_json(folder / "dataset.json", header)
    return folder


@pytest.fixture(scope="session")
def tiny_work(tiny_dataset) -> Path:
    """The same scans prepared: three folds, patches of 32x32x16, two a step, three epochs of six.

    Read only: copy it to change it.
    """
    from lamina.workflows.prepare import prepare

    work = tiny_dataset.parent / "work"
    prepare(tiny_dataset, work, ram_bytes=4e9, num_folds=3, workers=0, rehearse=False)
    plan = read_json(work / "plan.json")
    assert plan["patch_size"] == [32, 32, 16]
    write_json(work / "plan.json", plan | {"batch_size": 2, "steps_per_epoch": 6, "epochs": 3})
    return work


@pytest.fixture(scope="session")
def tiny_run(tiny_work) -> Path:
    """A run of one epoch of three steps on those scans: what it predicts is nonsense.

    Read only: copy it to change it.
    """
    from lamina.workflows.train import train

    run = tiny_work.parent / "run"
    train(tiny_work, run, {"epochs": 1, "steps_per_epoch": 3})
    return run


@pytest.fixture(scope="module")
def pacs(tmp_path_factory) -> Iterator[Any]:
    """A PACS that runs, as :class:`orthanc.Orthanc`, in a network where nothing else is."""
    from orthanc import Orthanc, alone

    with alone():
        server = Orthanc(tmp_path_factory.mktemp("orthanc"))
        try:
            server.start()
            yield server
        finally:
            server.kill()


@pytest.fixture
def cli() -> Iterator[Callable[..., Any]]:
    """Run the program in this process: ``cli("predict", "-m", model)``; its bugs are raised."""
    from typer.testing import CliRunner

    from lamina.cli.app import app

    def run(*arguments: object) -> Any:
        return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)

    root, ours = logging.getLogger(), logging.getLogger("lamina")
    before = root.handlers[:], root.level, ours.level
    yield run
    root.handlers[:], root.level, ours.level = before
    logging.captureWarnings(False)


def _balls(seed: int) -> tuple[Volume, Volume]:
    """Return one scan in noise and its label map, whose values leave gaps."""
    rng = np.random.default_rng(seed)
    shape, affine = (32, 32, 16), np.diag([1.0, 1.0, 2.0, 1.0])
    mm = np.stack(np.indices(shape)) * np.array([1, 1, 2]).reshape(3, 1, 1, 1)
    label = np.zeros(shape, np.uint8)
    for value, centre, radius in ((3, 11, 7.0), (7, 22, 4.5)):
        middle = np.array([centre, centre, 16]) + rng.uniform(-2, 2, 3)
        label[((mm - middle.reshape(3, 1, 1, 1)) ** 2).sum(0) < radius**2] = value
    image = 40.0 * (label == 3) + 90.0 * (label == 7) + rng.normal(100, 8, shape)
    name = f"ball {seed}"
    return Volume(image.astype(np.float32)[None], affine, name), Volume(label[None], affine, name)
