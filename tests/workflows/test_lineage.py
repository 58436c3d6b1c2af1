"""What a run began from is remembered, and held against the scans it is validated on."""

import shutil
from dataclasses import replace

import pytest

from lamina.bundle import load_bundle, model_card, save_bundle
from lamina.files import read_json, sha256, write_json
from lamina.folders.all_folds import AllFolds
from lamina.folders.lineage import foreknowledge, link_of
from lamina.folders.run import RunFolder
from lamina.folders.transformer import read_vit, transformer_for
from lamina.folders.work import WorkFolder
from lamina.models import NETWORKS
from lamina.workflows.cross_validation import cross_validate
from lamina.workflows.pretrain import pretrain
from lamina.workflows.train import train

SETTINGS = {
    "model_options": {
        **{"anchors": False, "lspm": False, "router": False},
        "channels": [4, 4, 4, 4, 8],
    },
    "patch_size": [16, 16, 16],
    "steps_per_epoch": 1,
    "epochs": 1,
}
VIT = {
    "views": {"global_size": 16, "local_size": 8},
    "num_outputs": 16,
    "head_width": 8,
    "batch_size": 16,
    "epochs": 1,
    "collapse_patience": 0,
}
WORK = {"dataset": "Tiny", "splits": "these"}


@pytest.fixture(scope="module")
def first(tiny_work, tmp_path_factory):
    """A model of fold 0."""
    run = RunFolder(tmp_path_factory.mktemp("first") / "run")
    train(tiny_work, run.root, SETTINGS)
    return run.bundle_file


def changed(bundle, out, **provenance):
    save_bundle(replace(bundle, provenance=bundle.provenance | provenance), out)
    return out


def test_a_start_that_learnt_validation_scans_is_told(tiny_work, first, tmp_path, caplog):
    train(tiny_work, tmp_path / "other", SETTINGS, fold=1, start=first)
    told = "has seen validation scans of fold 1, with their labels: it was trained for fold 0"
    assert told in caplog.text
    bundle = load_bundle(tmp_path / "other" / "model.lamina")
    link = {
        "dataset": "Tiny",
        "splits": sha256(tiny_work / "splits.json"),
        "fold": 0,
    }
    assert bundle.provenance["start"] == {"model": sha256(first)} | link
    assert sha256(first) in model_card(bundle)
    caplog.clear()
    train(tiny_work, tmp_path / "other", {"epochs": 2}, fold=1, resume=True)
    assert told in caplog.text
    caplog.clear()
    train(tiny_work, tmp_path / "same", SETTINGS, fold=0, start=first)
    assert caplog.text == ""


def test_a_start_brings_along_what_it_began_from(tiny_work, first, tmp_path, caplog):
    train(tiny_work, tmp_path / "one", SETTINGS, fold=1, start=first)
    caplog.clear()
    train(tiny_work, tmp_path / "two", SETTINGS, fold=0, start=tmp_path / "one" / "model.lamina")
    assert "of fold 0, with their labels: it was trained for fold 1." in caplog.text
    start = load_bundle(tmp_path / "two" / "model.lamina").provenance["start"]
    assert (start["fold"], start["before"]["fold"]) == (1, 0)
    caplog.clear()
    train(tiny_work, tmp_path / "three", SETTINGS, fold=2, start=tmp_path / "two" / "model.lamina")
    assert "of fold 2, with their labels: it was trained for fold 0, 1." in caplog.text


def test_of_other_splits_that_counts_which_may_hold_these_scans(tiny_work, first, tmp_path, caplog):
    work, bundle = shutil.copytree(tiny_work, tmp_path / "work"), load_bundle(first)
    write_json(work / "splits.json", read_json(work / "splits.json")[::-1])
    train(work, tmp_path / "fold_0", SETTINGS, start=first)
    assert "trained by other splits: it may have seen validation scans" in caplog.text
    hashes = {"splits.json": sha256(work / "splits.json")}
    record = {"trained": {"0": 0.5}, "hashes": hashes, "dataset": {"name": "Tiny"}}
    whole = AllFolds(WorkFolder(work), RunFolder(tmp_path), (), record)
    assert whole.seen_beforehand.endswith(
        "was trained, with labels, by other splits, and may have seen these scans"
    )
    caplog.clear()
    other = changed(bundle, tmp_path / "other.lamina", dataset={"name": "Other"})
    train(work, tmp_path / "run", SETTINGS, start=other)
    assert caplog.text == ""


def test_out_of_fold_scores_say_that_the_start_knew_their_scans(tiny_work, first, tmp_path, caplog):
    found = cross_validate(tiny_work, tmp_path / "run", SETTINGS, start=first)
    bundle = load_bundle(found.bundle)
    told = "; the model that they began from was trained, with labels, on the training scans of "
    assert f"{told}fold 0, which other folds" in bundle.metrics["measured_on"]
    assert bundle.provenance["start"]["model"] == sha256(first)
    assert caplog.text.count("has seen validation scans") == 2
    link = link_of(bundle)
    assert link["fold"] == [0, 1, 2]
    splits = {"dataset": "Tiny", "splits": link["splits"]}
    assert foreknowledge(link, splits).folds == (0, 1, 2)


def test_a_transformer_brings_along_what_it_began_from(tiny_work, tmp_path, caplog):
    shape = {"vit": {"token_size": 8, "width": 12, "depth": 1, "num_heads": 6}}
    pretrain(tiny_work, tmp_path / "first", VIT | shape)
    pretrain(tiny_work, tmp_path / "second", VIT, fold=1, start=tmp_path / "first")
    origin = read_vit(tmp_path / "second").origin
    assert (origin["fold"], origin["before"]["fold"]) == (1, 0)
    work = shutil.copytree(tiny_work, tmp_path / "work")
    shutil.copy(tmp_path / "second" / "vit.safetensors", work)
    transformer_for(WorkFolder(work), NETWORKS.get("dainet")(1, 2), 1)
    told = "seen validation scans of fold 1, without their labels: it was trained for fold 0."
    assert told in caplog.text


@pytest.mark.parametrize(
    "origin",
    [
        *(None, 7, [], {}, {"before": 3}, {"splits": None, "fold": 1, "before": []}),
        *({"splits": "those", "dataset": "Other", "fold": 0}, {"splits": "these", "fold": "0"}),
    ],
)
def test_who_tells_nothing_of_these_scans_knows_nothing(origin):
    known = foreknowledge(origin, WORK)
    assert (known.folds, known.other_splits) == ((), False)


def test_a_model_may_tell_anything_of_itself(first):
    bundle = load_bundle(first)
    for odd in (None, 3, [1], {"a": 1}):
        training = {"members": odd, "fold": odd}
        provenance = {"hashes": odd, "dataset": odd, "start": odd}
        strange = replace(bundle, training=training, provenance=provenance)
        assert foreknowledge(link_of(strange), WORK).folds == ()
