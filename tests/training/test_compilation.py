"""torch.compile, tried before the first step."""

import logging
import shutil

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lamina.training.checkpoints import LAST, read_checkpoint


@pytest.fixture(autouse=True)
def no_kernels_of_earlier_tests(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kernels"))
    torch.compiler.reset()


class Counting(nn.Module):
    """Has running statistics, which a trial must not touch."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        # A bias in front of a batch norm has no gradient but rounding, which Adam scales up.
        first = nn.Conv3d(1, 4, 3, padding=1, bias=False)
        self.layers = nn.Sequential(first, nn.BatchNorm3d(4), nn.Conv3d(4, 3, 1))

    def forward(self, x):
        return self.layers(x)


def weights_of(run):
    return read_checkpoint(run.folder / LAST)["state_dict"]


@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_compiled_run_ends_where_a_plain_one_does(new_run, caplog):
    plain, compiled = new_run("plain"), new_run("compiled")
    plain.network, compiled.network = Counting(), Counting()
    plain(epochs=1)
    with caplog.at_level(logging.INFO, "lamina"):
        compiled(epochs=1, compile=True)
    assert "compiled" in caplog.text
    assert_close(weights_of(compiled), weights_of(plain), rtol=1e-3, atol=1e-4)


def test_without_a_working_compiler_the_run_is_a_plain_one(new_run, monkeypatch, caplog):
    def broken(graph, inputs):
        raise OSError("no compiler here")

    plain, other = new_run("plain"), new_run("other")
    plain.network, network = Counting(), Counting()
    other.network = network
    monkeypatch.setattr(network, "compile", lambda: nn.Module.compile(network, backend=broken))
    plain(epochs=1)
    other(epochs=1, compile=True)
    assert "it fails here" in caplog.text
    other.assert_same_bits(plain)
