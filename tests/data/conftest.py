"""Tiny scans and plans for the tests of the data layer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lamina.data.cache import PreparedCase, prepare_case
from lamina.data.case import Case
from lamina.data.plan import Normalisation, Plan
from lamina.geometry import affine_from
from lamina.io import write_volume
from lamina.labels import LabelSet
from lamina.volume import Volume

LABELS = LabelSet(values={"core": 2, "shell": 5}, ignore=9)
SIZES = ((20, 18, 12), (9, 30, 12), (16, 16, 16), (31, 8, 10), (12, 12, 12))


@pytest.fixture(scope="session")
def plan_with() -> Callable[..., Plan]:
    """Make a plan for one-channel volumes of 1 mm, with fields of it changed."""

    def make(**changes: Any) -> Plan:
        dims = changes.get("spatial_dims", 3)
        fields = {
            "spatial_dims": dims,
            "channels": ("MR",),
            "labels": LABELS,
            "orientation": "RAS"[:dims],
            "target_spacing": (1.0,) * dims,
            "normalisation": (Normalisation(scheme="zscore"),),
            "network": "lightmedseg",
            "patch_size": (16,) * dims,
            "roi_size": (16,) * dims,
            "batch_size": 3,
            "mirror_axes": (0,),
            "epochs": 1,
            "steps_per_epoch": 1,
        }
        return Plan(**(fields | changes))

    return make


@pytest.fixture(scope="session")
def write_case() -> Callable[..., Case]:
    """Write an image ``(C, *S)`` and its label ``(*S)`` and return them as a case."""

    def write(
        folder: Path,
        image: np.ndarray,
        label: np.ndarray | None,
        affine: np.ndarray | None = None,
        case_id: str = "case_1",
    ) -> Case:
        affine = affine_from((1.0,) * (image.ndim - 1)) if affine is None else affine
        paths = [folder / kind / f"{case_id}.nii" for kind in ("images", "labels")]
        write_volume(Volume(image, affine), paths[0])
        if label is not None:
            write_volume(Volume(label[None], affine), paths[1])
        return Case(case_id=case_id, group=case_id, images=(paths[0],), label=paths[1])

    return write


@pytest.fixture(scope="session")
def prepared_cases(tmp_path_factory, plan_with, write_case) -> list[PreparedCase]:
    """Five cases of different sizes: a core and a shell in noise; the last has no label."""
    folder = tmp_path_factory.mktemp("prepared")
    rng = np.random.default_rng(0)
    cases = []
    for number, size in enumerate(SIZES):
        label = np.zeros(size, np.uint8)
        if number < len(SIZES) - 1:
            label[-5:, -5:, -5:] = 5
            label[-3:, -3:, -3:] = 2
            label[0, 0, 0] = 9
        image = (label + rng.normal(0, 1, size)).astype(np.float32)[None]
        case = write_case(folder, image, label, case_id=f"case_{number}")
        cases.append(prepare_case(case, plan_with(), folder / "cache"))
    return cases
