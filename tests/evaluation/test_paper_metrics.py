"""The papers' own ways to measure: their quirks are reproduced, labelled, and never the default."""

import io

import numpy as np
import pytest
from rich.console import Console

from lamina.cli.scores import render_scores
from lamina.errors import ConfigError, UnknownNameError
from lamina.evaluation.comparison import Comparison
from lamina.evaluation.metrics import METRICS
from lamina.evaluation.protocols import PROTOCOLS, find_metric
from lamina.evaluation.scores import Scores, score_case
from lamina.labels import LabelSet

LABELS = LabelSet(values={"liver": 1})
SPACING = (2.0, 3.0)


@pytest.fixture
def masks():
    """Return a prediction and a reference with TP = 4, FP = 2, FN = 3 and TN = 41."""
    prediction, reference = np.zeros((2, 5, 10), bool)
    prediction[1, 0:6] = reference[1, 2:9] = True
    return prediction, reference


def values_of(protocol, prediction, reference, spacing=SPACING):
    comparison = Comparison(prediction, reference, spacing)
    return {
        metric.name.removeprefix(f"{protocol}_"): metric.value(comparison)
        for metric in PROTOCOLS.get(protocol).metrics
    }


def scores_of(protocol):
    reference = np.zeros((6, 6), np.uint8)
    reference[1:4, 1:4] = 1
    names = tuple(metric.name for metric in PROTOCOLS.get(protocol).metrics)
    rows = score_case("a", reference, reference, LABELS, SPACING, names, protocol=protocol)
    return Scores(labels=LABELS, metrics=names, rows=tuple(rows), protocol=protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_number_of_a_protocol_can_be_taken_for_ours(protocol):
    own = [metric.name for metric in PROTOCOLS.get(protocol).metrics]
    assert all(name.startswith(f"{protocol}_") for name in own)
    assert not set(own) & set(METRICS)
    scores = scores_of(protocol)
    data = scores.as_dict()
    assert (data["protocol"], data["protocol_quirks"]) == (
        protocol,
        PROTOCOLS.get(protocol).quirks,
    )
    console = Console(file=io.StringIO(), width=100)
    console.print(render_scores(scores))
    assert f"MEASURED AS {PROTOCOLS.get(protocol).paper} DID" in console.file.getvalue()


def test_ours_is_no_protocol():
    assert Scores(labels=LABELS, metrics=("dice",), rows=()).as_dict()["protocol"] is None


def test_unknown_protocols_and_metrics_are_refused():
    with pytest.raises(UnknownNameError, match="Did you mean transunet"):
        find_metric("transunet_dice", "transnet")
    with pytest.raises(ConfigError, match="It measures transunet_dice, transunet_hd95"):
        find_metric("assd", "transunet")


def test_transunet_rewards_an_invented_organ_and_no_empty_mask_is_far(masks):
    some, none = masks[0], np.zeros_like(masks[0])
    assert values_of("transunet", some, none) == {"dice": 1, "hd95": 0}
    assert values_of("transunet", none, some) == {"dice": 0, "hd95": 0}
    assert values_of("transunet", none, none) == {"dice": 0, "hd95": 0}


def test_transunet_pools_distances_of_both_directions_in_voxels(masks):
    # Distances in voxels: 2 1 0 0 0 0 from the prediction, 0 0 0 0 1 2 3 from the reference. Of the
    # thirteen sorted ones the 95th percentile stands at 0.95 * 12 = 11.4, from 2 to 3.
    assert values_of("transunet", *masks) == pytest.approx({"dice": 8 / 13, "hd95": 2.4})
    assert values_of("transunet", *masks, (9.0, 0.1)) == values_of("transunet", *masks)


def test_mpunet_calls_recall_precision_and_npv_specificity(masks):
    values = values_of("mpunet", *masks)
    assert values["precision"] == pytest.approx(4 / 7)
    assert values["specificity"] == pytest.approx(41 / 44)
    ours = Comparison(*masks, SPACING)
    for name in ("dice", "iou", "accuracy", "mcc"):
        assert values[name] == METRICS.get(name).value(ours)


def test_lgmsnet_gives_the_recorded_numbers(shared):
    record = np.load(shared / "specs" / "fixtures" / "loss_metrics.npz")
    found = record["lgms2d/logits"][:, 0] > 0
    wanted = record["lgms2d/target"][:, 0] > 0.5
    names = {"SE": "recall", "PC": "precision", "SP": "specificity", "ACC": "accuracy"}
    order = [names.get(str(name), str(name).lower()) for name in record["lgms2d/metrics_names"]]
    for prediction, reference, expected in zip(
        found, wanted, record["lgms2d/metrics_per_image"], strict=True
    ):
        values = values_of("lgmsnet", prediction, reference)
        assert [values[name] for name in order] == pytest.approx(expected.tolist(), rel=1e-9)
    empty = values_of("lgmsnet", found[0], np.zeros_like(found[0]))
    quirk = record["lgms2d/metrics_empty_gt_quirk"].tolist()
    assert [empty[name] for name in order] == pytest.approx(quirk, rel=1e-6)


def test_lgmsnet_takes_an_empty_reference_for_a_full_one():
    some, none = np.zeros((2, 4, 5), bool)
    some[1, 1:4] = True
    values = values_of("lgmsnet", some, none)
    assert values["recall"] == pytest.approx(3 / 20, rel=1e-5)
    assert values["precision"] == pytest.approx(1, rel=1e-5)
    assert values["specificity"] == 0
    assert values_of("lgmsnet", none, none)["iou"] == 1
