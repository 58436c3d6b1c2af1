"""A torch module runs on arrays: its layout, its precision, and what it says when memory is out."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from lamina.inference.backend import TorchNetwork

BATCH = np.random.default_rng(0).normal(size=(2, 3, 8, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_windows_of_volumes_lie_channels_last(spatial_dims):
    """Twice as fast on a CPU; the network gets them so whatever the image lies like."""
    layouts = []

    def look(batch):
        last = torch.channels_last_3d if batch.ndim == 5 else torch.channels_last
        layouts.append(batch.is_contiguous(memory_format=last))
        return batch

    batch = BATCH if spatial_dims == 3 else BATCH[..., 0]
    np.testing.assert_array_equal(TorchNetwork(look)(batch), batch)
    assert layouts == [spatial_dims == 3]


def test_mirrored_windows_are_no_trouble():
    flipped = np.flip(BATCH, (2, 4))
    np.testing.assert_array_equal(TorchNetwork(torch.nn.Identity())(flipped), flipped)
    flat = np.flip(BATCH[:, :, :1], (2, 4))
    np.testing.assert_array_equal(TorchNetwork(torch.nn.Identity())(flat), flat)


def test_half_precision_becomes_single_and_nothing_is_kept_for_a_backward_pass():
    weight, graphs = torch.ones((), requires_grad=True), []

    def halved(batch):
        logits = (weight * batch).half()
        graphs.append(logits.requires_grad)
        return logits

    assert TorchNetwork(halved)(BATCH).dtype == np.float32
    assert graphs == [False]


def test_bfloat16_is_for_those_who_ask():
    conv, kinds = torch.nn.Conv3d(3, 2, 1), []
    conv.register_forward_hook(lambda module, seen, logits: kinds.append(logits.dtype))
    exact, rough = TorchNetwork(conv)(BATCH), TorchNetwork(conv, bf16=True)(BATCH)
    assert kinds == [torch.float32, torch.bfloat16]
    np.testing.assert_allclose(rough, exact, atol=0.05)
    assert rough.dtype == np.float32


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nwith advice"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: out of memory\nwith advice"),
        MemoryError("no more"),
    ],
)
def test_every_kind_of_lack_of_memory_is_a_memory_error(error):
    def fail(batch):
        raise error

    with pytest.raises(MemoryError) as told:
        TorchNetwork(fail)(BATCH)
    assert str(told.value) == str(error).partition("\n")[0]


def test_other_faults_stay_what_they_are():
    with pytest.raises(RuntimeError, match="expected input"):
        TorchNetwork(torch.nn.Conv3d(1, 1, 1))(BATCH)


def test_on_the_cpu_there_is_nowhere_else_to_go():
    assert TorchNetwork(torch.nn.Identity()).on_cpu() is None


def test_the_engine_and_all_it_needs_are_loaded_without_torch():
    """Exported models run where there is none."""
    script = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "monai", "lightning"):
            raise ImportError(f"{name} is asked for")
sys.meta_path.insert(0, Blocked())
import numpy as np
from lamina import data, geometry, inference, io, labels, volume
from lamina.data import plan, preprocess
from lamina.inference import memory, mirroring, postprocess, predictor, sparing
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
