"""A whole scan, from file to file: as Lamina segments it, and as is usual."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from lamina.bundle import build_network, load_bundle
from lamina.data.case import Case
from lamina.data.intensity import normalise
from lamina.data.phantom import make_large_scan
from lamina.data.preprocess import Alignment
from lamina.data.scans import scans_in
from lamina.errors import ResourceError
from lamina.folders.model import load
from lamina.inference.memory import held, taken_by
from lamina.io import read_volume, write_volume
from lamina.volume import Volume
from lamina.workflows import no_progress
from lamina.workflows.steps.batch import Batch
from lamina.workflows.steps.output import output_of

PARTS = ("read", "prepare", "network", "assemble", "write")


class Clock:
    """Adds up the seconds that parts of a job take."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.first: dict[str, float] = {}
        """When each part began for the first time."""

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Count the block."""
        began = time.perf_counter()
        self.first.setdefault(part, began)
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - began

    def timed(self, part: str, job: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that counts whenever it runs."""

        def run(*given: Any, **named: Any) -> Any:
            with self(part):
                return job(*given, **named)

        return run


@dataclass(frozen=True, kw_only=True)
class _TimedBatch(Batch):
    """A batch of the predict verb, which tells the seconds of its steps."""

    clock: Clock = field(default_factory=Clock)

    def _read(self, case: Case) -> Any:
        with self.clock("read"):
            return super()._read(case)

    def _segment(self, case: Case, *rest: Any) -> Any:
        with self.clock("segment"):
            return super()._segment(case, *rest)

    def _write(self, case: Case, *rest: Any) -> None:
        with self.clock("write"):
            super()._write(case, *rest)


def make_scan(out: Path, shape: tuple[int, ...]) -> None:
    """Write a made-up CT of so many voxels."""
    first, second, third = shape
    write_volume(make_large_scan(0, (first, second, third)), out)


def segmented(model: Path, image: Path, out: Path, *, bfloat16: bool) -> dict[str, Any]:
    """Segment a scan on the CPU as the predict verb does.

    Returns:
        Seconds in all and of each of ``PARTS``, and the most memory held, in MB.

    Raises:
        LaminaError: It fails.
    """
    loaded, clock = load(model, device="cpu", precision="bf16" if bfloat16 else "fp32"), Clock()
    network = clock.timed("network", loaded.predictor.network)
    timed = replace(loaded, predictor=replace(loaded.predictor, network=network))
    batch = _TimedBatch(
        model=timed,
        out=out,
        about={"file": model.name, "sha256": ""},
        output=output_of(None),
        settings={},
        clock=clock,
    )
    out.mkdir()
    found: list[Any] = []
    cases = scans_in(image, len(loaded.bundle.plan.channels))
    row = _measured(lambda: found.extend(batch.run(cases, (), (), no_progress)))
    if found[0].error:
        raise ResourceError(found[0].error)
    spent = clock.seconds
    spent["prepare"] = clock.first["network"] - clock.first["segment"]
    spent["assemble"] = spent["segment"] - spent["prepare"] - spent["network"]
    return row | {part: spent[part] for part in PARTS}


def as_the_field_does(model: Path, image: Path, out: Path) -> dict[str, Any]:
    """Segment a scan with MONAI's windows; resample all logits to full size, then decide.

    Reading, preparing and writing are Lamina's, the network is in its plain form.

    Returns:
        As :func:`segmented`.

    Raises:
        ResourceError: The machine has not the memory.
        ImportError: MONAI is not installed.
    """
    from monai.inferers import SlidingWindowInferer

    bundle, clock = load_bundle(model), Clock()
    plan, network = bundle.plan, clock.timed("network", build_network(bundle))
    out.mkdir()
    windows = SlidingWindowInferer(
        plan.roi_size, sw_batch_size=1, overlap=plan.overlap, mode="gaussian"
    )

    def segment() -> None:
        with clock("read"):
            scan = read_volume(image)
        _require(8 * plan.num_outputs * scan.array[0].size)
        with clock("prepare"):
            prepared = Alignment.of(scan, plan).prepare_image(scan.array)
            normalise(prepared, plan.normalisation, scan.source, out=prepared)
        with clock("windows"), torch.inference_mode():
            logits = windows(torch.from_numpy(prepared[None]), network)
            indices = _decided(logits, scan)
        with clock("write"):
            write_volume(replace(scan, array=plan.labels.decode(indices)), out / image.name)

    row, spent = _measured(segment), clock.seconds
    spent["assemble"] = spent["windows"] - spent["network"]
    return row | {part: spent[part] for part in PARTS}


def _decided(logits: Tensor, scan: Volume) -> Any:
    """Return class indices ``(1, *S)`` on the scan's grid."""
    full = torch.nn.functional.interpolate(logits, scan.spatial_shape, mode="trilinear")
    return full.argmax(1).numpy().astype(np.uint8)


def _require(needed: float) -> None:
    free = float(psutil.virtual_memory().available)
    if free < needed:
        raise ResourceError(f"takes {needed / 1e9:.0f} GB of memory, {free / 1e9:.0f} GB are free.")


def _measured(job: Callable[[], None]) -> dict[str, float]:
    began, before = time.perf_counter(), held()
    grown = taken_by(job)
    return {"seconds": time.perf_counter() - began, "peak_mb": (before + grown) / 1e6}
