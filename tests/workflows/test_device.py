"""Networks run where there is something to run on, and are planned for other machines too."""

import pytest
import torch

from lamina.errors import ConfigError
from lamina.training.device import chosen_device, is_here, placement, require_device
from lamina.workflows.plan import replan
from lamina.workflows.predict import predict
from lamina.workflows.pretrain import pretrain
from lamina.workflows.steps.planner import budget_of
from lamina.workflows.train import train


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cpu:1", ""])
def test_names_that_mean_no_device_are_refused(name):
    with pytest.raises(ConfigError, match="no such device"):
        chosen_device(name)


def test_the_processor_is_taken_where_there_is_no_gpu():
    assert chosen_device(None) == "cpu"
    require_device("cpu")


def test_the_second_of_one_gpu_is_not_here(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert chosen_device(None) == "cuda"
    assert is_here("cuda")
    assert is_here("cuda:0")
    with pytest.raises(ConfigError, match="device cuda:1: torch finds 1 GPU here"):
        require_device("cuda:1")


def test_a_gpu_that_is_not_here_is_planned_for_when_its_memory_is_told(tiny_work):
    with pytest.raises(ConfigError, match="torch finds 0 GPUs here") as caught:
        replan(tiny_work, device="cuda")
    assert "vram" in caught.value.remedy
    assert budget_of(None, 8e9, None, "cuda").device == "GPU memory"


def test_predicting_on_a_gpu_that_is_not_here_is_refused(tiny_run, tmp_path):
    with pytest.raises(ConfigError, match="device cuda: "):
        predict(tiny_run, out=tmp_path / "found", split="val", device="cuda")
    assert not (tmp_path / "found").exists()


def test_training_on_a_gpu_that_is_not_here_is_refused_before_anything_is_written(
    tiny_work, tmp_path
):
    with pytest.raises(ConfigError, match="device cuda: torch finds 0 GPUs here"):
        train(tiny_work, tmp_path / "run", {"device": "cuda"})
    with pytest.raises(ConfigError, match="device cuda:1: torch finds 0 GPUs here"):
        pretrain(tiny_work, tmp_path / "run", {"device": "cuda:1"})
    assert not (tmp_path / "run").exists()


def test_the_processor_is_trained_on_when_asked_for_beside_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert placement(chosen_device("cpu")) == {"accelerator": "cpu", "devices": 1}
    assert placement(chosen_device("cuda:1")) == {"accelerator": "cuda", "devices": [1]}
