"""When memory runs out, a prediction goes on with less, says so, and its result is the same."""

import logging

import numpy as np
import pytest
import torch

from lamina.errors import ResourceError
from lamina.inference.backend import TorchNetwork
from lamina.inference.sparing import Sparing

BATCH = np.random.default_rng(0).normal(size=(8, 1, 4, 4)).astype(np.float32)


class Small(torch.nn.Module):
    """A network on a device that holds so many windows, and notes how many it is given."""

    def __init__(self, room, error):
        super().__init__()
        self.room, self.error, self.seen = room, error, []

    def forward(self, batch):
        self.seen.append(len(batch))
        if len(batch) > self.room:
            raise self.error
        return 2 * batch

    def to(self, device):
        assert device == "cpu"
        self.room = 100
        return self


class OnGPU(TorchNetwork):
    """Says that it is elsewhere than it is."""

    def on_cpu(self):
        return TorchNetwork(self.module.to("cpu"))


@pytest.fixture(
    params=[
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        MemoryError(),
    ],
    ids=["gpu", "cpu", "numpy"],
)
def error(request):
    return request.param


def test_fewer_windows_are_taken_at_a_time(error, caplog):
    module = Small(3, error)
    network = Sparing(TorchNetwork(module))
    np.testing.assert_array_equal(network(BATCH), 2 * BATCH)
    assert module.seen == [8, 4, 2, 2, 2, 2]
    np.testing.assert_array_equal(network(BATCH[:5]), 2 * BATCH[:5])
    assert module.seen[6:] == [2, 2, 1]
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert caplog.messages[0].endswith("; going on with 4 windows at a time.")
    assert "memory" in caplog.messages[0]


def test_then_the_cpu_is_taken(error, caplog):
    module = Small(0, error)
    network = OnGPU(module)
    sparing = Sparing(network, network.on_cpu)
    np.testing.assert_array_equal(sparing(BATCH[:2]), 2 * BATCH[:2])
    np.testing.assert_array_equal(sparing(BATCH[:2]), 2 * BATCH[:2])
    assert module.seen == [2, 1, 1, 1, 1, 1]
    assert caplog.messages[-1].endswith("; going on on the CPU, which takes longer.")


def test_one_window_that_fits_nowhere_is_one_clear_error(error):
    network = TorchNetwork(Small(0, error))
    with pytest.raises(ResourceError, match=r"One window does not fit into memory: .*Free some"):
        Sparing(network, network.on_cpu)(BATCH)


def test_other_faults_are_not_taken_for_it():
    with pytest.raises(RuntimeError, match="shape"):
        Sparing(TorchNetwork(Small(0, RuntimeError("shape"))))(BATCH)
