"""Time a training step and a prediction of each network, and the cutting of its patches.

Prints a Markdown table: medians of repeats, and each network's ratio to the first, taken in turn in
one process, so that a slow moment of the machine falls on all of them alike.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable

import torch

from lamina.data.augment import Augmentation, augment
from lamina.data.sampling import random_for
from lamina.losses import build_loss
from lamina.models import NETWORKS, build

REPEATS = 7
BATCH = 2
PATCH = (64, 64, 48)
CLASSES = 5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    threads = parser.parse_args().threads
    torch.set_num_threads(threads)
    jobs: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
        name: _jobs(name) for name in NETWORKS
    }
    seconds: dict[str, list[list[float]]] = {name: [[], []] for name in jobs}
    for repeat in range(REPEATS + 1):
        for name, pair in jobs.items():
            for kind, job in enumerate(pair):
                taken = _time(job)
                if repeat:  # the first round warms caches
                    seconds[name][kind].append(taken)
    size = " x ".join(map(str, PATCH))
    print(f"{platform.machine()}, {threads} threads, torch {torch.__version__}, patch {size}, ")
    print(f"batch {BATCH} in training and 1 in prediction, median of {REPEATS}.\n")
    print("| network | training step (s) | ratio | prediction (s) | ratio |")
    print("|---|---|---|---|---|")
    medians = {name: [statistics.median(kind) for kind in both] for name, both in seconds.items()}
    first = next(iter(medians.values()))
    for name, (step, predict) in medians.items():
        ratios = (step / first[0], predict / first[1])
        print(f"| {name} | {step:.3f} | {ratios[0]:.2f} | {predict:.3f} | {ratios[1]:.2f} |")
    patch = statistics.median(_time(_cut) for _ in range(REPEATS))
    print(f"\nAugmenting a batch in the same process: {BATCH * patch:.3f} s.")


def _jobs(name: str) -> tuple[Callable[[], None], Callable[[], None]]:
    network = build(name, in_channels=1, num_classes=CLASSES)
    network.to(memory_format=torch.channels_last_3d)
    loss = build_loss("dice_ce")
    image = torch.randn(BATCH, 1, *PATCH).contiguous(memory_format=torch.channels_last_3d)
    target = torch.randint(0, CLASSES, (BATCH, *PATCH), dtype=torch.uint8)

    def step() -> None:
        loss(network(image), target).backward()
        network.zero_grad()

    def predict() -> None:
        with torch.inference_mode():
            network(image[:1])

    return step, predict


def _cut() -> None:
    image = torch.zeros(1, *PATCH)
    label = torch.zeros(1, *PATCH, dtype=torch.uint8)
    everything = Augmentation(p_affine=1, p_blur=1, p_noise=1, p_brightness=1, p_gamma=1)
    augment(image, label, everything, (1.0, 1.0, 1.0), (0, 1, 2), random_for(0, 0, 0))


def _time(job: Callable[[], None]) -> float:
    began = time.perf_counter()
    job()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
