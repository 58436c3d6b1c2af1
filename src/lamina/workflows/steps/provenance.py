"""Provenance: what a result was made with, on what machine, and from what."""

import platform
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

import psutil
import torch

from lamina.data.workers import num_cores
from lamina.folders.work import WorkFolder

_PACKAGES = ("lamina", "torch", "lightning", "monai", "numpy", "scipy", "nibabel", "SimpleITK")


def software() -> dict[str, str]:
    """Return the versions of everything that decides a result."""
    found = {name: version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **found}


def machine() -> dict[str, Any]:
    """Return what a run's speed depends on."""
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": num_cores(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def origin_of(work: WorkFolder) -> dict[str, Any]:
    """Return how each manifest begins: when, with what and from which prepared cases."""
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "software": software(),
        "machine": machine(),
        "dataset": work.cohort().origin,
        "work": str(work.root.resolve()),
        "hashes": work.hashes(),
    }
