"""The model card says what the bundle holds, and nothing it does not."""

from dataclasses import replace

import pytest

from lamina.bundle import build_network, model_card
from lamina.labels import LabelSet
from small_bundles import small_bundle


def section(card: str, title: str) -> str:
    return card.split(f"\n## {title}\n")[1].split("\n## ")[0].strip()


def rows(text: str) -> list[list[str]]:
    """The cells of a Markdown table, without its ruler."""
    lines = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_structures_are_listed_in_class_order(bundle):
    text = section(model_card(bundle), "What it segments")
    assert rows(text)[1:] == [["background", "0"], ["tumour", "7"], ["liver", "3"]]
    assert "organ: liver + tumour." in text
    assert "labelled 99" in text


def test_needs_follow_the_plan(bundle):
    needs = dict(rows(section(model_card(bundle), "What it needs"))[1:])
    assert needs["Input channels, in this order"] == "CT, PET"
    assert needs["Voxel size it works at"] == "1 × 0.75 × 2.5 mm"
    assert needs["Orientation it works in"] == "RAS"


def test_size_is_the_networks(bundle):
    parameters = sum(weight.numel() for weight in build_network(bundle).parameters())
    text = section(model_card(bundle), "Network")
    assert f"{parameters:,} parameters, {parameters * 4 / 1e6:.2f} MB" in text
    assert ["channels", "4, 4, 4, 4, 4"] in rows(text)


def test_scores_are_tabulated_with_their_means(bundle):
    metrics = {
        "mean_dice": 0.81063,
        "dice": {"tumour": 0.70119, "liver": 0.92},
        "hd95": {"liver": 12.0, "tumour": None},
        "cases": 38,
    }
    text = section(model_card(replace(bundle, metrics=metrics)), "Validation scores")
    assert rows(text) == [
        ["Structure", "dice", "hd95"],
        ["tumour", "0.7012", "–"],
        ["liver", "0.92", "12"],
        ["mean", "0.8106", "–"],
        ["Setting", "Value"],
        ["cases", "38"],
    ]


def test_scores_say_how_sure_and_of_what_they_are(bundle):
    metrics = {
        "mean_dice": 0.8,
        "dice": {"tumour": 0.7, "liver": 0.9},
        "intervals": {
            "dice": {"tumour": {"n": 12, "mean": 0.71, "low": 0.65, "high": 0.76}},
            "mean_dice": {"n": 14, "mean": 0.81, "low": 0.75, "high": 0.84},
        },
    }
    training = {"fold": 2}
    card = model_card(replace(bundle, metrics=metrics, training=training))
    text = section(card, "Validation scores")
    assert ["tumour", "0.7 (n 12: 0.71, 0.65 to 0.76)"] in rows(text)
    assert ["liver", "0.9"] in rows(text)
    assert ["mean", "0.8 (n 14: 0.81, 0.75 to 0.84)"] in rows(text)
    assert "intervals" not in text
    assert "In brackets" in text
    bare = metrics | {"intervals": {"dice": {"tumour": [0.6, 0.8]}, "mean_dice": [0.7, 0.9]}}
    assert "0.6" not in section(model_card(replace(bundle, metrics=bare)), "Validation scores")
    assert "validation scans of fold 2" in text
    told = metrics | {"measured_on": "40 out-of-fold scans"}
    assert "of fold 2" not in model_card(replace(bundle, metrics=told, training=training))


def test_data_and_its_range_are_reported_where_they_are_known(bundle):
    assert "## Range of the training scans" not in model_card(bundle)
    span = {"low": 1.0, "high": 2000.0, "least": 0.5, "most": 3000.0}
    levels = dict.fromkeys(("p00_5", "median", "p99_5"), span)
    ranges = {
        "cases": 30,
        "unit": "mm",
        "spacing": [span] * 3,
        "extent": [span] * 3,
        "intensity": [levels, levels],
        "size": {"liver": span},
        "absent": {"liver": 0, "tumour": 4},
    }
    dataset = {"name": "Livers", "licence": "CC0", "source": "A. Nobody, Livers, 2026"}
    provenance = {"dataset": dataset, "hashes": {"plan.json": "ab"}}
    training = {"num_training_cases": 30, "ranges": ranges}
    card = model_card(replace(bundle, training=training, provenance=provenance))
    text = section(card, "Range of the training scans")
    assert "Of 30 scans. Absent: tumour in 4." in text
    assert ["liver, ml", "0.001 to 2", "0.0005 to 3"] in rows(text)
    assert ["Voxel, head to foot, mm", "1 to 2000", "0.5 to 3000"] in rows(text)
    data = dict(rows(section(card, "Data"))[1:])
    assert data["Licence"] == "CC0"
    assert data["Source"] == "A. Nobody, Livers, 2026"
    assert data["SHA-256 of plan.json"] == "ab"
    assert "ranges" not in section(card, "Training")


@pytest.fixture(scope="module")
def pictures():
    """A model of grey pictures, with the range of those that it was trained on."""
    bundle = small_bundle("tinyunet", spatial_dims=2)
    span = {"low": 200.0, "high": 300.0, "least": 180.0, "most": 330.0}
    ranges = {
        "cases": 30,
        "unit": "px",
        "spacing": [span] * 2,
        "extent": [span] * 2,
        "intensity": [dict.fromkeys(("p00_5", "median", "p99_5"), span)],
        "size": {"core": span},
        "absent": {"core": 0, "rim": 0},
    }
    plan = replace(bundle.plan, unit="px", orientation="LP", target_spacing=(2.0, 2.0))
    training = {"fold": 0, "num_training_cases": 30, "ranges": ranges}
    return replace(bundle, plan=plan, training=training)


def test_a_card_of_pictures_knows_no_millimetres_and_no_body(pictures):
    card = model_card(replace(pictures, metrics={"dice": {"core": 0.5}}))
    text = card.partition("## Choices")[0] + card.partition("## How to use it")[2]
    for word in (" mm", "ml", "cm²", "voxel", "Voxel", "scan", "Scan", "head", "LP", ".nii"):
        assert word not in text.replace("lamina", ""), word
    needs = dict(rows(section(card, "What it needs"))[1:])
    assert needs["Pixel size it works at"] == "2 × 2 px"
    assert needs["Orientation it works in"] == "as it is seen"
    table = rows(section(card, "Range of the training images"))
    assert ["Extent, across, px", "200 to 300", "180 to 330"] in table
    assert ["core, px", "200 to 300", "180 to 330"] in table
    assert "bring other images to" in section(card, "How to use it")


def test_a_card_of_images_in_mm_says_how_to_tell_the_size_of_a_pixel(pictures):
    ranges = pictures.training["ranges"] | {"unit": "mm"}
    plan = replace(pictures.plan, unit="mm")
    card = model_card(replace(pictures, plan=plan, training={"ranges": ranges}))
    assert "-i IMAGE.png --pixel-size MM -o OUT" in section(card, "How to use it")
    table = rows(section(card, "Range of the training images"))
    assert ["Pixel, down, mm", "200 to 300", "180 to 330"] in table
    assert ["core, cm²", "2 to 3", "1.8 to 3.3"] in table


@pytest.mark.parametrize("metrics", [{}, {"mean_dice": 0.8}, {"dice": {}}, {"dice": {"a": {}}}])
def test_incomplete_scores_are_tolerated(metrics, bundle):
    text = section(model_card(replace(bundle, metrics=metrics)), "Validation scores")
    assert "0.8" in text if "mean_dice" in metrics else "0.8" not in text
    assert ("Not recorded." in text) == (not metrics)


def test_reasons_training_and_origin_are_reported(bundle):
    card = model_card(bundle)
    assert "- patch size: It holds 95 % of the cases whole." in card
    assert ["optimizer.lr", "0.003"] in rows(section(card, "Training"))
    assert ["licence", "–"] in rows(section(card, "Provenance"))


def test_limits_and_use_are_stated(bundle):
    card = model_card(bundle)
    assert "Research use only; not a medical device." in card
    assert "lamina predict -m FILE.lamina -i SCAN.nii.gz -o OUT" in card
    assert "`SCAN_0000.nii.gz`, `SCAN_0001.nii.gz`." in section(card, "How to use it")


def test_long_records_are_counted_not_listed(bundle):
    provenance = {"data_sha256": {f"case_{i}": "0" * 64 for i in range(500)}, "folds": [1] * 99}
    card = model_card(replace(bundle, provenance=provenance))
    assert rows(section(card, "Provenance"))[1:] == [
        ["data_sha256", "500 entries"],
        ["folds", "99 entries"],
    ]


def test_many_structures_keep_the_title_short(bundle):
    labels = LabelSet(values={f"bone {i}": i for i in range(1, 41)})
    fields = bundle.network["fields"] | {"num_classes": 41}
    weights = {
        name: tensor.new_zeros(41, *tensor.shape[1:]) if name.startswith("head.") else tensor
        for name, tensor in bundle.weights.items()
    }
    network = {"name": "lightmedseg", "fields": fields}
    plan = replace(bundle.plan, labels=labels)
    card = model_card(replace(bundle, plan=plan, network=network, weights=weights))
    assert card.splitlines()[0].endswith("bone 8 and 32 more")


def test_names_cannot_break_the_page(bundle):
    labels = LabelSet(values={"a|b\n# Cured!": 1, "<script>alert(1)</script>": 2})
    card = model_card(replace(bundle, plan=replace(bundle.plan, labels=labels)))
    assert "\n# Cured!" not in card
    assert "a\\|b # Cured! | 1 |" in card
    assert "\\<script\\>" in card
    assert card.count("\n## ") == model_card(bundle).count("\n## ")
