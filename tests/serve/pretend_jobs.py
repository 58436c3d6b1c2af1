"""A job that takes no network: what a scan is called says what becomes of it."""

import os
import signal
import time

import numpy as np

from lamina.errors import FileError
from lamina.io import read_volume, write_volume
from lamina.serve.schemas import Model
from lamina.volume import Volume

MODEL = Model(
    name="pretend",
    title="Segmentation of nothing",
    card="# Segmentation of nothing\n",
    labels=[
        {"name": "rim", "value": 3, "color": "#56b4e9"},
        {"name": "core", "value": 7, "color": "#e69f00"},
    ],
    channels=["CT"],
    spatial_dims=3,
    unit="mm",
    network="none",
    size_bytes=1,
    scores=None,
)
PAIR = MODEL.model_copy(update={"name": "pair", "channels": ["T1", "T2"]})
MODELS = {"pretend": MODEL, "pair": PAIR}


def make_job():
    return pretend


def pretend(work, tell):
    tell("reading", 0.0)
    if "damaged" in work.name:
        raise FileError(f"{work.name}: is damaged.", remedy="Send it again.")
    if "bug" in work.name:
        raise ValueError("a patient's name")
    if "killer" in work.name:
        os.kill(os.getpid(), signal.SIGKILL)
    if "endless" in work.name:
        while True:
            tell("segmenting", 0.5)
            time.sleep(0.02)
    if "deaf" in work.name:
        time.sleep(600)
    (path, *_) = work.files
    tell("segmenting", 0.5)
    scan = read_volume(path)
    array = np.where(scan.array[:1] > 0, 7, 0).astype(np.uint8)
    write_volume(Volume(array, scan.affine), work.out / "segmentation.nii.gz")
    (work.out / "report.html").write_text("<script>1</script>")
    structure = {
        "name": "core",
        "value": 7,
        "color": "#e69f00",
        "size": 1.5,
        "unit": "ml",
        "flags": ["in 2 pieces"],
    }
    return {
        "structures": [structure],
        "flags": [
            "look at it",
            *(work.files.values() if work.ordered else ()),
            *([f"pixels of {work.pixel_size} mm"] if work.pixel_size else ()),
        ],
        "affine": scan.affine.tolist(),
        "files": {"segmentation.nii.gz": "segmentation", "report.html": "report"},
    }
