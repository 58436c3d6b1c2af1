"""Time what one training patch costs, change by change, against a training step on it.

A case of 160 x 160 x 144 voxels is stored as preparation does and read through its memory map.
Prints a Markdown table of medians in milliseconds of processor time, on one thread.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from lamina.data.augment import AUGMENTATIONS, NO_AUGMENTATION, Augmentation
from lamina.data.cache import PreparedCase
from lamina.data.patches import PatchDataset
from lamina.data.sampling import PatchSampler
from lamina.losses import build_loss
from lamina.losses.deep_supervision import DeepSupervision
from lamina.models import configure

REPEATS = 9
CASE = (160, 160, 144)
PATCHES = ((64, 64, 48), (96, 96, 96))
CHANGES = {
    name: replace(NO_AUGMENTATION, **{f"p_{name}": 1.0})
    for name in (
        "affine",
        "elastic",
        "mirror",
        "quarter_turn",
        "blur",
        "low_resolution",
        "noise",
        "brightness",
        "gamma",
    )
}
LISTS = {"default list": Augmentation()} | {f"{k} list": v for k, v in AUGMENTATIONS.items()}
EVERYTHING = replace(
    Augmentation(),
    **{name: 1.0 for name in vars(NO_AUGMENTATION) if name.startswith("p_")},
)


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        case = store_case(Path(folder))
        print("| ms per patch | " + " | ".join("x".join(map(str, size)) for size in PATCHES) + " |")
        print("|---" * (1 + len(PATCHES)) + "|")
        cut = [patch_ms(case, size, NO_AUGMENTATION) for size in PATCHES]
        show("cutting alone", cut)
        for name, how in CHANGES.items():
            alone = [patch_ms(case, size, how) for size in PATCHES]
            show(f"+ {name}", [x - base for x, base in zip(alone, cut, strict=True)])
        for name, how in LISTS.items():
            show(name, [patch_ms(case, size, how, average=True) for size in PATCHES])
        show("everything", [patch_ms(case, size, EVERYTHING) for size in PATCHES])
    show("LightMedSeg training step", [step_ms(size) for size in PATCHES])


def show(name: str, figures: list[float]) -> None:
    """Print one row."""
    print(f"| {name} | " + " | ".join(f"{x:.1f}" for x in figures) + " |", flush=True)


def store_case(folder: Path) -> PreparedCase:
    """Write noise as a prepared case."""
    rng = np.random.default_rng(0)
    image = rng.standard_normal((1, *CASE), dtype=np.float32)
    np.save(folder / "image.npy", image)
    np.save(folder / "label.npy", (image > 0).astype(np.uint8))
    np.save(folder / "positions.npy", np.empty((0, 4), np.int32))
    (folder / "case.json").write_text(json.dumps({"spacing": [1.0, 1.0, 1.0]}), "utf-8")
    return PreparedCase(folder)


def patch_ms(
    case: PreparedCase, size: tuple[int, ...], how: Augmentation, *, average: bool = False
) -> float:
    """Return the median time of a patch, or the mean over many where chance decides on it."""
    sampler = PatchSampler(
        cases=[case], patch_size=size, batch_size=1, seed=0, oversample_foreground=0
    )
    patches = PatchDataset(sampler=sampler, augmentation=how, mirror_axes=(0,))
    numbers = iter(range(10**6))
    count = 6 * REPEATS if average else REPEATS
    taken = timed(lambda: patches[next(numbers)], count)
    return statistics.mean(taken) if average else statistics.median(taken)


def step_ms(size: tuple[int, ...]) -> float:
    """Return the median time of LightMedSeg's forward and backward pass on one patch."""
    config = configure("lightmedseg", in_channels=1, num_classes=2)
    network = config.build().to(memory_format=torch.channels_last_3d)
    image = torch.randn(1, 1, *size).contiguous(memory_format=torch.channels_last_3d)
    target = torch.randint(0, 2, (1, *size), dtype=torch.uint8)
    loss = DeepSupervision(build_loss("dice_ce"))

    def step() -> None:
        loss(network.train()(image), target).backward()
        network.zero_grad()

    return statistics.median(timed(step, 3))


def timed(job: Callable[[], object], count: int) -> list[float]:
    """Return milliseconds of each call, after one that warms caches."""
    taken = []
    for _ in range(count + 1):
        began = time.process_time()
        job()
        taken.append(1e3 * (time.process_time() - began))
    return taken[1:]


if __name__ == "__main__":
    main()
