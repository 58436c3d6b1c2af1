"""Where the processes of a run are: as asked for, or refused."""

import os

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import FSDPStrategy
from torch import nn

from lamina.errors import ConfigError
from lamina.training.config import TrainConfig
from lamina.training.ending import ending_together
from lamina.training.processes import layout_of, require_one_process


@pytest.fixture
def torchrun(monkeypatch):
    """Two machines with two processes each."""
    told = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)


def test_a_run_has_one_process_unless_told_otherwise():
    layout = layout_of(TrainConfig(batch_size=3))
    assert (layout.device, layout.per_node, layout.nodes, layout.count) == ("cpu", 1, 1, 1)
    assert layout.for_trainer(nn.Identity()) == {"accelerator": "cpu", "devices": 1}


def test_settings_decide_how_many_processes_there_are():
    layout = layout_of(TrainConfig(batch_size=12, devices=3, nodes=2))
    assert (layout.per_node, layout.nodes, layout.count) == (3, 2, 6)


@pytest.mark.usefixtures("torchrun")
def test_processes_that_torchrun_started_are_found():
    layout = layout_of(TrainConfig(batch_size=4))
    assert (layout.per_node, layout.nodes, layout.count) == (2, 2, 4)
    assert layout_of(TrainConfig(batch_size=4, devices=2, nodes=2)) == layout
    with pytest.raises(ConfigError, match="devices = 3, nodes = 2: torchrun started 4 processes"):
        layout_of(TrainConfig(batch_size=6, devices=3))


@pytest.mark.usefixtures("gpus")
def test_each_process_has_a_gpu_of_its_own():
    about = layout_of(TrainConfig(batch_size=2, devices=2)).for_trainer(nn.Identity())
    assert (about["accelerator"], about["devices"], about["num_nodes"]) == ("cuda", 2, 1)
    assert about["sync_batchnorm"]
    sharded = layout_of(TrainConfig(batch_size=2, devices=2, sharded=True))
    assert isinstance(sharded.for_trainer(nn.Identity())["strategy"], FSDPStrategy)
    one = layout_of(TrainConfig(batch_size=2, device="cuda:1"))
    assert one.for_trainer(nn.Identity()) == {"accelerator": "cuda", "devices": [1]}


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"devices": 3}, "device cuda:2: torch finds 2 GPUs here"),
        ({"sharded": True}, "sharded: needs several GPUs"),
        ({"sharded": True, "devices": 2, "device": "cpu"}, "sharded: needs several GPUs"),
        ({"device": "cuda:1", "devices": 2}, "device = 'cuda:1': is one GPU, for one process"),
    ],
)
def test_gpus_that_are_not_there_are_refused(settings, fault):
    with pytest.raises(ConfigError, match=fault):
        layout_of(TrainConfig(batch_size=6, **settings))


@pytest.mark.parametrize(
    ("parts", "fault"),
    [(1, "among 4 processes\\."), (2, "among 4 processes in 2 parts")],
)
def test_patches_that_cannot_be_shared_out_are_refused(parts, fault):
    config = TrainConfig(batch_size=6, devices=4, grad_accum_steps=parts)
    with pytest.raises(ConfigError, match=f"batch_size = 6: cannot be shared out evenly {fault}"):
        layout_of(config)


def test_jobs_of_many_runs_are_refused_several_processes(monkeypatch):
    require_one_process(TrainConfig(devices=1), "sweep")
    with pytest.raises(ConfigError, match="^sweep: cannot share its steps among several"):
        require_one_process(TrainConfig(nodes=2), "sweep")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    with pytest.raises(ConfigError, match="^sweep: cannot share its steps among several"):
        require_one_process(TrainConfig(), "sweep")


def test_processes_that_nothing_starts_on_other_machines_are_not_waited_for(monkeypatch):
    for name in ("MASTER_ADDR", "LAMINA_FIRST_PROCESS"):
        monkeypatch.delenv(name, raising=False)
    layout = layout_of(TrainConfig(batch_size=2, nodes=2))
    trainer = Trainer(**layout.for_trainer(nn.Identity()), logger=False)
    fault = r"nodes = 2: nothing starts the processes of other machines\. .*srun or torchrun"
    with pytest.raises(ConfigError, match=fault), ending_together(trainer):
        pass
    assert "LAMINA_FIRST_PROCESS" not in os.environ
    monkeypatch.setenv("MASTER_ADDR", "first.machine")  # as whoever starts them by hand says
    monkeypatch.setenv("LOCAL_RANK", "0")
    with ending_together(trainer):
        pass
