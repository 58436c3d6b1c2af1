"""Losses of a batch that several processes share: those of the whole batch, and so their slopes."""

import os
import sys

import pytest
import torch
from torch import distributed, multiprocessing

from lamina.labels import IGNORE_INDEX
from lamina.losses import LOSSES, build_loss

COUNT = 2
CASES = [
    *[(name, {}) for name in LOSSES],
    ("dice_ce", {"batch": False, "squared": True}),
    ("region_dice_ce", {"ce": "softmax", "batch": False}),
]


def batch_of(name):
    """Two images, the second of which is mostly ignored and lacks a class."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(COUNT, 3, 4, 5, 6, generator=draw, dtype=torch.float64)
    target = torch.randint(0, 3, (COUNT, 4, 5, 6), generator=draw, dtype=torch.uint8)
    target[1, target[1] == 2] = 0
    target[1, 1:] = IGNORE_INDEX
    if name.startswith("region"):
        known = target.unsqueeze(1) != IGNORE_INDEX
        classes = torch.arange(3, dtype=torch.uint8).reshape(1, 3, 1, 1, 1)
        masks = (target.unsqueeze(1) >= classes).to(torch.uint8)
        target = masks.masked_fill(~known, IGNORE_INDEX)
    return logits.requires_grad_(), target


def share_of(rank, folder):
    """Leave the loss and the slope of one process's share."""
    if sys.platform == "linux":
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    place = f"file://{folder / 'meeting'}"
    distributed.init_process_group("gloo", init_method=place, rank=rank, world_size=COUNT)
    found = []
    for name, options in CASES:
        logits, target = (part[rank : rank + 1] for part in batch_of(name))
        logits = logits.detach().requires_grad_()
        loss = build_loss(name, **options)(logits, target)
        loss.backward()
        found.append((loss.detach(), logits.grad))
    torch.save(found, folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def shares(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shares")
    multiprocessing.spawn(share_of, (folder,), nprocs=COUNT)
    return [torch.load(folder / f"{rank}.pt") for rank in range(COUNT)]


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda n: CASES[n][0])
def test_processes_that_average_their_gradients_learn_from_the_whole_batch(shares, number):
    name, options = CASES[number]
    logits, target = batch_of(name)
    loss = build_loss(name, **options)(logits, target)
    loss.backward()
    losses, slopes = zip(*(share[number] for share in shares), strict=True)
    torch.testing.assert_close(torch.stack(losses).mean(), loss.detach())
    # Averaging over processes divides what each adds by their number.
    torch.testing.assert_close(torch.cat(slopes) / COUNT, logits.grad)
