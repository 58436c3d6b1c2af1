"""Time the augmentation of one training patch, every change switched on."""

import statistics
import time

import torch

from lamina.data.augment import Augmentation, augment
from lamina.data.sampling import random_for

REPEATS = 7
PATCH = (64, 64, 48)


def main() -> None:
    """Measure and print."""
    image = torch.zeros(1, *PATCH)
    label = torch.zeros(1, *PATCH, dtype=torch.uint8)
    everything = Augmentation(p_affine=1, p_blur=1, p_noise=1, p_brightness=1, p_gamma=1)
    taken = []
    for repeat in range(REPEATS):
        began = time.perf_counter()
        augment(image, label, everything, (1.0, 1.0, 1.0), (0, 1, 2), random_for(0, 0, repeat))
        taken.append(time.perf_counter() - began)
    print(f"A patch of {'x'.join(map(str, PATCH))}: median {statistics.median(taken):.3f} s.")


if __name__ == "__main__":
    main()
