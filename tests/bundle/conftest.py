"""A small trained-looking model, and archives that somebody tampered with."""

import hashlib
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from lamina.bundle import Bundle, save_bundle
from lamina.data.plan import Normalisation, Plan
from lamina.labels import LabelSet
from lamina.models import configure

Repack = Callable[[Mapping[str, bytes]], Path]


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    plan = Plan(
        spatial_dims=3,
        channels=("CT", "PET"),
        labels=LabelSet(  # neither in alphabetical order nor consecutive: class order must survive
            values={"tumour": 7, "liver": 3},
            regions={"organ": ("liver", "tumour")},
            ignore=99,
        ),
        orientation="RAS",
        target_spacing=(1.0, 0.75, 2.5),
        normalisation=(
            Normalisation(scheme="ct", low=-100.0, high=300.0, mean=40.5, std=31.25),
            Normalisation(scheme="zscore"),
        ),
        network="lightmedseg",
        patch_size=(48, 64, 32),
        roi_size=(48, 64, 32),
        batch_size=2,
        mirror_axes=(0,),
        epochs=10,
        steps_per_epoch=20,
        reasons={"patch_size": "It holds 95 % of the cases whole."},
    )
    torch.manual_seed(0)
    config = configure(
        "lightmedseg", in_channels=2, num_classes=3, channels=(4,) * 5, router_channels=4
    )
    return Bundle(
        network={"name": "lightmedseg", "fields": asdict(config)},
        weights=config.build().state_dict(),
        plan=plan,
        training={"epochs": 10, "optimizer": {"name": "AdamW", "lr": 0.003}},
        metrics={"mean_dice": 0.81, "dice": {"tumour": 0.70125, "liver": 0.92}},
        provenance={"lamina": "0.1.0", "seed": 3, "date": "2026-01-01", "licence": None},
    )


@pytest.fixture(scope="session")
def saved(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "model.lamina"
    save_bundle(bundle, path)
    return path


@pytest.fixture(scope="session")
def members(saved: Path) -> dict[str, bytes]:
    """All four members as saved."""
    with zipfile.ZipFile(saved) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def repack(tmp_path: Path, members: dict[str, bytes]) -> Repack:
    """Write a bundle with some members replaced and, as an attacker would, the checksums redone."""

    def write(changes: Mapping[str, bytes]) -> Path:
        content = {k: v for k, v in {**members, **changes}.items() if k != "SHA256SUMS"}
        sums = "".join(f"{hashlib.sha256(content[k]).hexdigest()}  {k}\n" for k in sorted(content))
        path = tmp_path / "repacked.lamina"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in {**content, "SHA256SUMS": sums.encode()}.items():
                archive.writestr(name, data)
        return path

    return write
