"""What a run folder holds: the records of where it came from, and a model for use."""

import pytest
import torch

from lamina import load
from lamina.bundle import load_bundle
from lamina.config import load_yaml, resolve
from lamina.files import read_json, sha256
from lamina.folders.run import RunFolder, read_history
from lamina.training.checkpoints import BEST, read_checkpoint
from lamina.training.config import TrainConfig
from lamina.training.device import resolve_precision


@pytest.fixture
def run(tiny_run):
    return RunFolder(tiny_run)


def test_a_run_can_be_used_at_once(tiny_dataset, run):
    segmentation = load(run.root).predict(tiny_dataset / "imagesTr" / "ball_000.nii.gz")
    assert segmentation.spatial_shape == (32, 32, 16)
    bundle = load_bundle(run.bundle_file)
    best = read_checkpoint(run.checkpoints / BEST)["state_dict"]
    for name, weight in bundle.weights.items():
        assert torch.equal(weight, best[f"average.module.{name}"])
    assert bundle.training["steps"] == int(best["steps_done"])
    (line,) = [line for line in read_history(run) if line["dice"] == bundle.metrics["mean_dice"]]
    assert bundle.metrics["dice"] == {"large": line["dice/large"], "small": line["dice/small"]}


def test_the_manifest_says_what_the_run_was_made_from(tiny_work, run):
    manifest = read_json(run.manifest_file)
    software = manifest["software"]
    assert {"python", "lamina", "lightning", "monai", "numpy", "nibabel"} <= software.keys()
    assert software["torch"] == torch.__version__
    assert manifest["machine"]["cores"] >= 1
    assert manifest["machine"]["threads"] == torch.get_num_threads()
    assert manifest["seed"] == 0
    assert manifest["dataset"] == {"name": "Tiny", "licence": "CC0"}
    for name in ("plan.json", "splits.json", "dataset.json"):
        assert manifest["hashes"][name] == sha256(tiny_work / name)
    assert manifest["fold"] == 0
    split = read_json(tiny_work / "splits.json")[0]
    assert [case["case_id"] for case in manifest["val_cases"]] == split["val"]
    assert manifest["num_training_cases"] == len(split["train"])
    assert manifest["network"]["fields"]["num_classes"] == 3


def test_the_settings_are_kept_and_read_back(run):
    config = resolve(TrainConfig, load_yaml(run.config_file))
    assert (config.epochs, config.steps_per_epoch) == (1, 3)  # given
    assert (config.patch_size, config.batch_size) == ((32, 32, 16), 2)  # the plan's
    assert (config.model, config.precision) == ("lightmedseg", resolve_precision("auto", "cpu"))
    assert load_yaml(run.config_file) == read_json(run.manifest_file)["config"]


def test_tensorboard_gets_the_same_numbers(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run.root / "tensorboard"))
    board.Reload()
    assert {"dice", "loss", "lr"} <= set(board.Tags()["scalars"])
    shown = [(event.step, event.value) for event in board.Scalars("dice")]
    assert shown == [(line["step"], pytest.approx(line["dice"])) for line in read_history(run)]
