"""Models that come with the package are found by their names."""

import json
import shutil
from pathlib import Path

import pytest

from lamina.bundle import shipped
from lamina.errors import BundleError
from lamina.files import sha256
from lamina.workflows.load import find_bundle


@pytest.fixture
def one_model(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "pretrained")
    shipped.FOLDER.mkdir()
    return shutil.copy(tiny_run / "model.lamina", shipped.FOLDER / "balls.lamina")


def test_a_name_does_for_a_path(one_model, tiny_dataset, tmp_path, cli):
    scan = tiny_dataset / "imagesTr" / "ball_000.nii.gz"
    done = cli("predict", "-m", "balls", "-i", scan, "-o", tmp_path / "out")
    assert done.exit_code == 0
    assert (tmp_path / "out" / "ball_000.nii.gz").is_file()


def test_a_file_of_the_same_name_goes_first(one_model, tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_run, tmp_path / "balls")
    assert find_bundle(Path("balls")).resolve().is_relative_to(tmp_path / "balls")


def test_they_are_listed_with_what_they_were_trained_on(one_model, cli):
    (model,) = json.loads(cli("models", "--pretrained", "--json").stdout)["models"]
    assert model["name"] == "balls"
    assert (model["dataset"], model["licence"]) == ("Tiny", "CC0")
    assert model["structures"] == ["large", "small"]
    assert model["sha256"] == sha256(one_model)


def test_a_wrong_name_is_told_which_there_are(one_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match=r"bals: no such file or folder.*comes with .*: balls"):
        find_bundle(Path("bals"))


def test_every_one_that_ships_may_be_given_away_and_says_how_good_it_is():
    from lamina.workflows.shipped import list_shipped

    for model in list_shipped():
        assert model.dice
        assert model.licence
        assert "NC" not in model.licence
        assert model.size_bytes < 12e6
