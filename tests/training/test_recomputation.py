"""Activation checkpointing: less is kept, and nothing else changes."""

import copy

import pytest
import torch

from lamina.bundle import load_bundle
from lamina.folders.run import RunFolder
from lamina.models import configure
from lamina.training import recomputation
from lamina.training.recomputation import checkpoint_activations
from lamina.workflows.train import train

NETWORKS = [
    ("lightmedseg", {"spatial_dims": 2}),
    ("mpunet", {"spatial_dims": 2, "dropout": 0.5}),
    ("lgmsnet_2d", {}),
    ("dainet", {}),  # batch normalisation
    ("unext", {}),
    ("dynunet_pocket", {"spatial_dims": 2}),
]


def step(network, image):
    """Go forward and backward; return the bytes that were kept in between."""
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        heads = network(image)
        heads = heads if isinstance(heads, list) else [heads]
        loss = sum(head.square().mean() for head in heads)
    for parameter in network.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    loss.backward()
    return sum(kept.values())


@pytest.mark.parametrize(("name", "options"), NETWORKS, ids=[name for name, _ in NETWORKS])
def test_gradients_and_statistics_are_the_same_and_less_is_kept(name, options):
    config = configure(name, in_channels=1, num_classes=2, **options)
    plain = config.build().train()
    frugal = copy.deepcopy(plain)
    checkpoint_activations(frugal)
    sides = [max(32, config.size_divisor)] * config.spatial_dims
    image = torch.randn(2, config.input_channels, *sides)
    assert step(frugal, image) < 0.7 * step(plain, image)
    assert frugal.state_dict().keys() == plain.state_dict().keys()
    for ours, theirs in zip(frugal.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(frugal.parameters(), plain.parameters(), strict=True):
        assert ours.grad is theirs.grad or torch.equal(ours.grad, theirs.grad)


def test_a_run_comes_to_the_same_weights(tiny_work, tiny_run, tmp_path, monkeypatch):
    recomputed, checkpoint = [], recomputation.checkpoint

    def counted(forward, *args, **kwargs):
        recomputed.append(torch.is_grad_enabled())
        return checkpoint(forward, *args, **kwargs)

    monkeypatch.setattr(recomputation, "checkpoint", counted)
    settings = {"epochs": 1, "steps_per_epoch": 3, "activation_checkpointing": True}
    run = train(tiny_work, tmp_path / "run", settings)
    assert any(recomputed)
    ours, theirs = (load_bundle(b).weights for b in (run.bundle, RunFolder(tiny_run).bundle_file))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
