"""Models that come with the package are found by their names."""

import io
import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from lamina import pretrained, runtime
from lamina.bundle import load_bundle
from lamina.cli import listings
from lamina.errors import BundleError
from lamina.export.container import read_exported
from lamina.files import read_json, sha256
from lamina.folders.bundle import find_bundle
from lamina.workflows.export import MAX_DROP
from lamina.workflows.shipped import Quantised, ShippedModel, list_shipped

ROOT = Path(__file__).parents[2]
MOST_BYTES = 60e6
"""Of all models together; whoever installs the package loads them down."""

IN_INT8 = Quantised(name="kvasir-int8", dice_drop=0.01, size_bytes=2_080_000)


@pytest.fixture
def one_model(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "pretrained")
    pretrained.FOLDER.mkdir()
    return shutil.copy(tiny_run / "model.lamina", pretrained.FOLDER / "balls.lamina")


def test_a_name_does_for_a_path(one_model, tiny_dataset, tmp_path, cli):
    scan = tiny_dataset / "imagesTr" / "ball_000.nii.gz"
    done = cli("predict", "-m", "balls", "-i", scan, "-o", tmp_path / "out")
    assert done.exit_code == 0
    assert (tmp_path / "out" / "ball_000.nii.gz").is_file()


def test_trained_models_are_listed_by_name(cli, one_model):
    (model,) = json.loads(cli("models", "--pretrained", "balls", "--json").stdout)["models"]
    assert model["name"] == "balls"
    done = cli("models", "--pretrained", "bowls")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Unknown trained model 'bowls'.\n  Known: balls." in done.stderr


def test_a_file_of_the_same_name_goes_first(one_model, tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_run, tmp_path / "balls")
    assert find_bundle(Path("balls")).resolve().is_relative_to(tmp_path / "balls")


def test_a_folder_of_the_same_name_that_holds_no_model_hides_none(one_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "balls" / "imagesTr").mkdir(parents=True)
    assert find_bundle(Path("balls")) == Path(one_model)
    with pytest.raises(BundleError, match="holds neither a model nor a checkpoint"):
        find_bundle(tmp_path / "balls")


def test_a_run_of_the_same_name_that_was_stopped_early_is_not_taken_for_the_model(
    one_model, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "balls" / "checkpoints").mkdir(parents=True)
    (tmp_path / "balls" / "manifest.json").write_text("{}")
    with pytest.raises(BundleError, match="holds neither a model nor a checkpoint"):
        find_bundle(Path("balls"))


def test_what_ships_names_no_scan():
    for folder in pretrained.quantised().values():
        rows = read_json(folder / "parity.json")["scans"]["cases"]
        assert [row["scan"] for row in rows] == [*range(1, len(rows) + 1)]
        assert not any("case_id" in row for row in rows)


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


def listed(name, dataset, **changes):
    fields = {
        "licence": "CC BY 4.0",
        "source": "somebody",
        "network": "lightmedseg",
        "spatial_dims": 2,
        "unit": "px",
        "channels": ("red", "green", "blue"),
        "structures": ("polyp",),
        "dice": 0.8125,
        "size_bytes": 5_900_000,
        "sha256": "",
        "int8": None,
    }
    return ShippedModel(name=name, dataset=dataset, **fields | changes)


def test_six_models_are_readable_in_80_columns():
    models = [
        listed("kvasir", "Kvasir-SEG (part, 256 x 256)", int8=IN_INT8),
        listed("hc18", "HC18 (part)", channels=("grey",), structures=("fetal head",), unit="mm"),
        listed("isic2017", "ISIC 2017 (part)", structures=("lesion",), licence="CC0 1.0"),
        listed("busi", "BUSI (part)", channels=("grey",), structures=("lesion",), dice=None),
        listed(
            *("sts", "Soft-tissue sarcoma CT/PET/T1 (IBSI validation set)"),
            channels=("CT", "PET_SUVx100", "T1"),
            **{"structures": ("GTV",), "spatial_dims": 3, "unit": "mm"},
        ),
        listed("hippocampus", "Hippocampus", channels=("MRI",), spatial_dims=3, unit="mm"),
    ]
    console = Console(width=80, file=io.StringIO())
    console.print(listings.shipped(models))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) < 30
    told = "\n".join(line.rstrip() for line in lines)
    assert "…" not in told
    for part in (
        "2D: red, green, blue",
        "2D in mm: grey",
        "3D: CT, PET_SUVx100, T1",
        "0.812",
        "Dice: of the validation scans in training, on the prepared grid.",
        " 2.1",
    ):
        assert part in told
    assert "--pixel-size MM" in told
    console = Console(width=80, file=io.StringIO())
    console.print(listings.shipped(models[:1]))
    assert "--pixel-size" not in console.file.getvalue()


def test_every_one_that_ships_may_be_given_away_and_says_how_good_it_is():
    models = list_shipped()
    assert models
    for model in models:
        assert model.dice
        assert model.licence
        assert model.source
        assert "NC" not in model.licence
    files = (file for file in pretrained.FOLDER.rglob("*") if file.is_file())
    assert sum(file.stat().st_size for file in files) < MOST_BYTES


def test_each_comes_in_int8_as_well():
    names = [f"{name}{pretrained.INT8}" for name in pretrained.shipped()]
    assert list(pretrained.quantised()) == names


@pytest.mark.parametrize("name", sorted(pretrained.quantised()))
def test_every_one_in_int8_is_of_the_model_that_ships_and_as_good(name):
    exported = read_exported(pretrained.quantised()[name])
    original = name.removesuffix(pretrained.INT8)
    assert exported.precision == "int8"
    assert exported.source["sha256"] == sha256(pretrained.shipped()[original])
    (model,) = [model for model in list_shipped() if model.name == original]
    assert model.int8.name == name
    assert model.int8.dice_drop <= MAX_DROP


@pytest.mark.parametrize(
    ("name", "mode", "more"),
    [("kvasir-int8", "RGB", ()), ("hc18-int8", "L", ("--pixel-size", "0.5"))],
)
def test_one_in_int8_is_run_by_its_name(name, mode, more, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (200, 256, 3), np.uint8)
    Image.fromarray(noise).convert(mode).save("scene.png")
    runtime.main(["-m", name, "-i", "scene.png", "-o", "mask.png", *more])
    mask = np.asarray(Image.open("mask.png"))
    assert mask.shape == (200, 256)
    assert set(np.unique(mask)) <= {0, 255}
    with pytest.raises(BundleError, match=f"lamina-runtime -m {name}"):
        find_bundle(Path(name))


def test_a_wrong_name_of_one_in_int8_is_told_which_there_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match=r"hc18: no such folder.*comes along: .*hc18-int8"):
        runtime.load("hc18")


def test_the_notice_names_the_data_behind_each_of_them():
    """Made by ``tools/shipped.py notice``; run it again where this fails."""
    tool = runpy.run_path(str(ROOT / "tools" / "shipped.py"))
    notice = (pretrained.FOLDER / "NOTICE.txt").read_text("utf-8")
    assert notice == tool["notice"](pretrained.shipped())
    assert max(map(len, notice.splitlines())) < 110


def test_a_model_is_brought_in_with_its_source_in_the_card(one_model, tiny_run):
    tool = runpy.run_path(str(ROOT / "tools" / "shipped.py"))
    tool["add"]("balls", tiny_run, "Made up, 2026.")
    bundle = load_bundle(Path(one_model))
    assert bundle.provenance["dataset"] == {
        "name": "Tiny",
        "licence": "CC0",
        "source": "Made up, 2026.",
    }
    assert "Trained on Tiny: Made up, 2026. Licence" in tool["notice"](pretrained.shipped())


def test_the_licence_goes_into_the_wheel_of_the_runtime():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    runtime = ROOT / "runtime"
    settings = tomllib.loads((runtime / "pyproject.toml").read_text("utf-8"))
    (licence,) = settings["project"]["license-files"]
    assert (runtime / licence).read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_models_and_notice_go_into_the_wheel():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    patterns = settings["tool"]["setuptools"]["package-data"]["lamina"]
    folders = pretrained.quantised().values()
    exported = (file for folder in folders for file in folder.iterdir())
    for file in (*pretrained.shipped().values(), *exported, pretrained.FOLDER / "NOTICE.txt"):
        inside = file.relative_to(ROOT / "src" / "lamina")
        assert any(inside.match(pattern) for pattern in patterns), inside
