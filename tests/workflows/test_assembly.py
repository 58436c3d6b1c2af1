"""What a run is made of suits its network, or is refused."""

from dataclasses import replace

import pytest

from lamina.errors import ConfigError
from lamina.files import read_json
from lamina.folders.work import WorkFolder
from lamina.models import NETWORKS, usual
from lamina.training.config import TrainConfig
from lamina.workflows.steps import rehearsal
from lamina.workflows.steps.assembly import loss_of, network_and_loss, network_of
from lamina.workflows.steps.rehearsal import rehearse
from lamina.workflows.steps.settings import completed


@pytest.fixture
def plan(tiny_work):
    return WorkFolder(tiny_work).plan()


def of_regions(plan):
    names = tuple(plan.labels.foreground)
    labels = replace(plan.labels, regions={"both": names, "core": names[:1]})
    return replace(plan, labels=labels, region_based=True)


@pytest.mark.parametrize("name", ["mpunet", "mpunet_released"])
def test_a_network_whose_classes_exclude_each_other_cannot_say_regions(plan, name):
    config = TrainConfig(model=name)
    assert network_of(config, plan).num_classes == 3
    with pytest.raises(ConfigError, match="classes exclude each other") as caught:
        network_of(config, of_regions(plan))
    assert "another network" in caught.value.remedy
    assert network_of(TrainConfig(model="mpunet_unet"), of_regions(plan)).num_classes == 2


@pytest.mark.parametrize(
    ("name", "weights", "fault"),
    [
        ("lightmedseg", (1.0, 0.5), "lightmedseg has 1 head. Set it, and deep_"),
        ("lightmedseg", (1.0,), "has 1 head"),
        ("mpunet", (1.0, 0.5), "mpunet has 4 heads. Give 4 weights, finest first"),
    ],
)
def test_heads_are_weighed_where_there_are_as_many(plan, name, weights, fault):
    with pytest.raises(ConfigError, match=fault):
        network_and_loss(TrainConfig(model=name, deep_supervision=weights), plan)
    config = TrainConfig(model="mpunet", deep_supervision=(1.0, 0.4, 0.4, 0.4))
    assert network_and_loss(config, plan)[1].weights == (1.0, 0.4, 0.4, 0.4)


def test_a_loss_is_tried_on_the_classes_that_there_are(plan):
    config = TrainConfig(loss="boundary_dice_ce", loss_options={"class_weights": [1, 2]})
    with pytest.raises(ConfigError, match=r"class_weights = \(1.0, 2.0\) must be 3 numbers"):
        loss_of(config, plan)
    loss_of(replace(config, loss_options={"class_weights": [1, 2, 3]}), plan)
    loss_of(TrainConfig(loss="region_dice_ce"), of_regions(plan))


def test_steps_that_are_passes_stay_open_until_the_cases_are_known(plan):
    config = TrainConfig(device="cpu", passes_per_epoch=2)
    assert completed(config, plan).steps_per_epoch is None


def test_glims_keeps_to_full_precision_unless_told_otherwise(plan):
    assert {usual(name).precision for name in NETWORKS if name.startswith("glims")} == {"fp32"}
    assert usual("lightmedseg").precision is None
    planned = replace(plan, network="glims", precision="bf16")
    for asked, taken in (("auto", "fp32"), ("bf16", "bf16")):
        config = TrainConfig(device="cpu", precision=asked)
        assert completed(config, planned).precision == taken


@pytest.mark.parametrize(
    ("name", "formats"), [("glims", {"fp32"}), ("lightmedseg", {"fp32", "bf16"})]
)
def test_half_precision_is_rehearsed_where_the_network_stands_it(
    plan, tiny_work, tmp_path, monkeypatch, name, formats
):
    monkeypatch.setattr(rehearsal, "has_bf16", lambda: True)
    options = {
        "glims": {"feature_size": 6, "depths": (0, 0, 0), "attention_guidance": False},
        "lightmedseg": {"channels": (4, 8, 16, 32, 64)},
    }
    small = {"patch_size": (32, 32, 16), "roi_size": (32, 32, 16), "batch_size": 2}
    planned = replace(plan, network=name, network_options=options[name], **small)
    folder = WorkFolder(tiny_work)
    case_ids = tuple(read_json(folder.splits_file)[0]["train"])
    planned = replace(planned, estimates=planned.estimates | {"step_s": 10.0})
    taken = rehearse(planned, folder.cache, case_ids, tmp_path)
    assert set(taken.steps_s) == formats
