"""A network, patches and a loss so small that a whole run takes a fraction of a second."""

from dataclasses import asdict, dataclass, field

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lamina.data.augment import Augmentation
from lamina.data.cache import open_cases
from lamina.data.folds import read_fold
from lamina.data.patches import PatchDataset
from lamina.data.sampling import PatchSampler
from lamina.files import write_json
from lamina.losses import build_loss
from lamina.training.callbacks import EpochReport, RunState
from lamina.training.checkpoints import LAST, read_checkpoint
from lamina.training.config import TrainConfig
from lamina.training.fit import fit


def small_network(seed, spatial_dims):
    """Return two convolutions with dropout, so that a resumed run must repeat random numbers."""
    conv = nn.Conv3d if spatial_dims == 3 else nn.Conv2d
    torch.manual_seed(seed)
    layers = conv(1, 4, 3, padding=1), nn.Dropout(0.2), nn.GELU(), conv(4, 3, 1)
    return nn.Sequential(*layers)


def make_patches(cases, patch_size, seed):
    sampler = PatchSampler(
        cases=cases, patch_size=patch_size, batch_size=2, seed=seed, oversample_foreground=0.5
    )
    return PatchDataset(sampler=sampler, augmentation=Augmentation(), mirror_axes=(0,))


@pytest.fixture(scope="session")
def cases(tiny_work):
    return open_cases(tiny_work / "cases", read_fold(tiny_work / "splits.json", 0).train)


@pytest.fixture(scope="session")
def flat_cases(tmp_path_factory):
    """Two prepared images with two axes."""
    cache, rng = tmp_path_factory.mktemp("flat"), np.random.default_rng(0)
    for name in ("a", "b"):
        folder = cache / name
        folder.mkdir()
        label = rng.integers(0, 3, (1, 20, 24)).astype(np.uint8)
        rows = [(label[0, i, j], i, j) for i, j in np.argwhere(label[0])]
        np.save(folder / "image.npy", rng.normal(size=(1, 20, 24)).astype(np.float32))
        np.save(folder / "label.npy", label)
        np.save(folder / "positions.npy", np.array(sorted(rows), np.int32))
        write_json(folder / "case.json", {"spacing": [1.0, 1.0]})
    return open_cases(cache, ("a", "b"))


@dataclass
class Run:
    """One training run and everything it was heard to say."""

    folder: object
    patches: PatchDataset
    network: nn.Module
    loss: object = field(default_factory=lambda: build_loss("dice_ce"))
    reports: list[EpochReport] = field(default_factory=list)
    steps: list[tuple] = field(default_factory=list)
    state: RunState | None = None

    def __call__(self, *, resume=False, validate=None, on_step=None, loggers=(), **settings):
        """Train two epochs of three steps, saving after each step, unless told otherwise."""

        def listen(*heard):
            self.steps.append(heard)
            if on_step is not None:
                on_step(*heard)

        length = {"epochs": 2, "steps_per_epoch": 3, "batch_size": 2, "checkpoint_every_s": 0.0}
        timing = {n: settings.pop(n) for n in ("began", "validation_steps") if n in settings}
        self.state = fit(
            self.network,
            self.loss,
            self.patches,
            TrainConfig(**{**length, **settings}),
            self.folder,
            validate=validate or weight,
            resume=resume,
            **timing,
            loggers=loggers,
            on_epoch=self.reports.append,
            on_step=listen,
        )
        return self

    def crash_after(self, step, **how):
        """Train until something goes wrong after a step."""
        then = how.pop("on_step", lambda *heard: None)

        def crash(done, *heard):
            then(done, *heard)
            if done == step:
                raise Crash

        with pytest.raises(Crash):
            self(on_step=crash, **how)

    @property
    def history(self):
        """What was last said of each epoch, without the clock."""
        timed = {"elapsed_s": 0, "waiting": 0}
        return list({report.epoch: asdict(report) | timed for report in self.reports}.values())

    @property
    def last(self):
        return read_checkpoint(self.folder / LAST)

    def assert_same_bits(self, other):
        """Compare weights, averages, counters and the optimiser's memory with another run's."""
        for part in ("state_dict", "optimizer_states"):
            assert_close(self.last[part], other.last[part], rtol=0, atol=0)


class Crash(Exception):
    """Something that goes wrong and is no error of Lamina's."""


def weight(network):
    """Stand in for a Dice score by a number that depends on every weight."""
    return {"dice": float(sum(p.detach().abs().mean() for p in network.parameters())) / 100}


@pytest.fixture
def new_run(tmp_path, cases):
    """Return a function that sets up a run in a folder of the given name."""

    def make(name="run", *, seed=0, scans=cases, patch_size=(8, 8, 8), **parts):
        patches = make_patches(scans, patch_size, seed)
        network = small_network(seed, spatial_dims=len(patch_size))
        return Run(tmp_path / name, patches, network, **parts)

    return make


@pytest.fixture
def whole(new_run):
    """A run that nothing stopped."""
    return new_run("whole")()
