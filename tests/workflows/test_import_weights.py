"""Authors' checkpoints become models, or are refused with the reason."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

import lamina
from lamina.bundle import build_network, load_bundle, save_bundle
from lamina.data.intensity import normalise
from lamina.data.scans import scans_in
from lamina.errors import BundleError, ConfigError, UnknownNameError
from lamina.folders.transformer import read_vit
from lamina.models import configure
from lamina.models.reference import REFERENCES, fit_reference, load_reference
from lamina.models.vit import ViTConfig
from lamina.workflows.import_weights import import_weights


def names_of(shared, network):
    """Return the published names and shapes of a network's weights."""
    text = (shared / "specs" / "reference_names" / f"{network}_state_dict_names.txt").read_text()
    lines = [line.split("\t") for line in text.splitlines() if line.strip()]
    return {name: tuple(json.loads(shape)) for name, shape in lines}


@pytest.fixture
def published(shared):
    """Make a state dict of small random weights under published names."""

    def make(network):
        generator = torch.Generator().manual_seed(0)
        return {
            name: torch.rand(shape, generator=generator) / 10 if shape else torch.tensor(5)
            for name, shape in names_of(shared, network).items()
        }

    return make


@pytest.fixture
def checkpoint(published, tmp_path):
    """An LGMSNet 3D checkpoint as its trainer saves them, best score of NumPy's kind included."""
    state = {f"module.{name}": x for name, x in published("lgmsnet3d").items()}
    file = tmp_path / "model_best.pt"
    torch.save({"epoch": 7, "best_acc": np.float64(0.8), "state_dict": state}, file)
    return file


@pytest.mark.parametrize(
    ("name", "network"),
    [("glims", "glims"), ("lgmsnet_2d", "lgmsnet2d"), ("lgmsnet_3d", "lgmsnet3d")],
)
def test_every_published_name_finds_its_place(published, name, network):
    state = published(network)
    fit = fit_reference(name, None, state)
    assert fit.misfits == {}
    preset = configure(name, in_channels=fit.config.in_channels, num_classes=fit.config.num_classes)
    assert fit.config == preset


def test_weights_arrive_unchanged(published):
    state = published("lgmsnet3d")
    network = load_reference("lgmsnet_3d", {}, state)
    rename = REFERENCES.get("lgmsnet").rename
    own = network.state_dict()
    assert {rename(name) for name in state} == set(own)
    assert all(torch.equal(own[rename(name)], x) for name, x in state.items())


def test_a_checkpoint_becomes_a_model_that_predicts(cli, checkpoint, tmp_path):
    """With a task of one's own, whose window is small: the authors' takes minutes."""
    shipped = Path(lamina.__file__).parent / "recipes" / "checkpoints" / "lgmsnet_btcv.yaml"
    task, out = tmp_path / "task.yaml", tmp_path / "organs.lamina"
    task.write_text(shipped.read_text().replace("96, 96, 96", "32, 32, 32"))
    done = cli(
        "import-weights", checkpoint, "--from", "lgmsnet", "--task", task, "--out", out, "--json"
    )
    assert (done.exit_code, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert (told["network"], told["parameters"], told["left_over"]) == ("lgmsnet_3d", 6_193_742, [])
    bundle = load_bundle(out)
    assert bundle.plan.labels.foreground[5] == "liver"
    assert bundle.training["imported_from"] == "model_best.pt"
    array = np.random.default_rng(0).normal(0, 200, (20, 20, 20)).astype(np.float32)
    found = lamina.load(out)(array, spacing=(1.5, 1.5, 2))
    assert found.shape == array.shape
    assert set(np.unique(found)) <= set(range(14))


def test_what_is_missing_or_misshapen_is_listed_and_nothing_written(published, tmp_path):
    state = published("lgmsnet3d")
    state.pop("Conv_1x1.bias")
    state["stem.conv.0.bias"] = torch.zeros(3)
    file, out = tmp_path / "x.safetensors", tmp_path / "x.lamina"
    save_file(state, file)
    with pytest.raises(BundleError, match=r"1 missing: head\.bias; 1 of another shape: stem"):
        import_weights("lgmsnet", file, out)
    assert not out.exists()


def test_what_has_no_place_makes_it_another_network_s(published, tmp_path):
    file, out = tmp_path / "x.safetensors", tmp_path / "x.lamina"
    save_file(published("lgmsnet3d") | {"auxiliary.weight": torch.zeros(2)}, file)
    with pytest.raises(BundleError, match=r"1 unexpected: auxiliary\.weight"):
        import_weights("lgmsnet", file, out)
    assert not out.exists()
    with pytest.raises(BundleError, match=r"1 unexpected: auxiliary\.weight"):
        load_reference(
            "lgmsnet", None, {**published("lgmsnet3d"), "auxiliary.weight": torch.zeros(2)}
        )


def test_weights_of_another_network_are_refused(published):
    with pytest.raises(BundleError, match="not those of the published network"):
        load_reference("glims", None, published("lgmsnet3d"))
    with pytest.raises(UnknownNameError, match="glimz"):
        load_reference("glimz", None, {})


def test_a_binary_network_is_read_as_yes_or_no_to_one_region(published, tmp_path):
    file, out = tmp_path / "x.safetensors", tmp_path / "x.lamina"
    save_file(published("lgmsnet2d"), file)
    with pytest.raises(ConfigError, match="lgmsnet_busi and lgmsnet_kvasir fits lgmsnet_2d"):
        import_weights("lgmsnet", file, out)
    import_weights("lgmsnet", file, out, task="lgmsnet_kvasir")
    model = lamina.load(out)
    assert model.bundle.plan.num_outputs == 1
    array = np.random.default_rng(0).uniform(0, 255, (3, 40, 50)).astype(np.float32)
    always, never = (with_bias(model, bias, array, tmp_path) for bias in (50.0, -50.0))
    assert (always == 1).all()
    assert (never == 0).all()


@torch.no_grad()
def test_weights_trained_on_blue_first_see_pictures_as_they_did(published, tmp_path):
    state = published("lgmsnet2d")
    file, out = tmp_path / "x.safetensors", tmp_path / "x.lamina"
    save_file(state, file)
    import_weights("lgmsnet", file, out, task="lgmsnet_busi")
    colours = np.random.default_rng(0).integers(0, 256, (64, 32, 3), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "scan.png")
    bundle = load_bundle(out)
    (case,) = scans_in(tmp_path / "scan.png", 3)
    volume = case.read_image(bundle.plan.channels)
    prepared = normalise(volume.array.astype(np.float32), bundle.plan.normalisation, "scan.png")
    found = build_network(bundle).eval()(torch.from_numpy(prepared)[None])
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    bgr = (colours[..., ::-1] / 255 - mean) / std / 255  # the authors' code, on what OpenCV reads
    image = torch.from_numpy(bgr.transpose(2, 1, 0).copy()).float()[None]
    torch.testing.assert_close(found, load_reference("lgmsnet_2d", None, state)(image))


def test_channels_trained_on_must_be_those_of_the_plan(published, tmp_path):
    shipped = Path(lamina.__file__).parent / "recipes" / "checkpoints" / "lgmsnet_busi.yaml"
    file, task = tmp_path / "x.safetensors", tmp_path / "task.yaml"
    save_file(published("lgmsnet2d"), file)
    task.write_text(shipped.read_text().replace("[blue, green, red]", "[blue, green, green]"))
    with pytest.raises(ConfigError, match="must be the plan's channels in another order"):
        import_weights("lgmsnet", file, tmp_path / "x.lamina", task=str(task))


def with_bias(model, bias, array, folder):
    weights = dict(model.bundle.weights)
    weights["head.weight"] = torch.zeros_like(weights["head.weight"])
    weights["head.bias"] = torch.full_like(weights["head.bias"], bias)
    save_bundle(replace(model.bundle, weights=weights), folder / "biased.lamina")
    return lamina.load(folder / "biased.lamina")(array, spacing=(1.0, 1.0))


HARMLESS = {"head.weight": torch.zeros(2), "mask_token": torch.zeros(1, 64)}


def test_a_transformer_of_another_function_is_refused(tmp_path):
    state = ViTConfig(image_size=28, token_size=14, width=64, depth=1, num_heads=1).build()
    scales = {f"blocks.0.ls{n}.gamma": torch.full((64,), 1e-5) for n in (1, 2)}
    file, out = tmp_path / "dinov2.pth", tmp_path / "vit.safetensors"
    torch.save(state.state_dict() | HARMLESS | scales, file)
    with pytest.raises(BundleError, match=r"2 unexpected: blocks\.0\.ls1\.gamma"):
        import_weights("dino", file, out)
    assert not out.exists()


def test_a_vision_transformer_becomes_an_encoder(tmp_path):
    config = ViTConfig(image_size=32, token_size=8, width=64, depth=2, num_heads=1)
    state = {f"backbone.{name}": x for name, x in config.build().state_dict().items()}
    file, out = tmp_path / "dino.pth", tmp_path / "vit.safetensors"
    torch.save({"student": {}, "teacher": state | HARMLESS}, file)
    told = import_weights("dino", file, out)
    assert (told.network, told.left_over) == ("vit", ("head.weight", "mask_token"))
    plain = tmp_path / "plain"
    plain.touch()
    assert out.stat().st_mode == plain.stat().st_mode
    assert read_vit(out).vit.config == config
    with safe_open(out, "pt") as saved:
        fields = json.loads(saved.metadata()["fields"])
        kept = {name: saved.get_tensor(name) for name in saved.keys()}  # noqa: SIM118
    assert ViTConfig(**fields) == config
    assert kept.keys() == config.build().state_dict().keys()
    with pytest.raises(BundleError, match=r"vit\.safetensors"):
        import_weights("dino", file, tmp_path / "vit.lamina")


class Payload:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no checkpoint", "not a readable checkpoint"),
        (b'{"name": "Tiny", "labels": {}}', "not a readable checkpoint"),
        ({"state_dict": {"a": Payload()}}, "holds more than weights, and will not be unpickled"),
        ({"epoch": 3}, "holds no weights by name"),
        ([torch.zeros(2)], "holds no weights by name"),
    ],
)
def test_other_files_are_refused_and_nothing_in_them_runs(tmp_path, capsys, content, message):
    file = tmp_path / "x.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(BundleError, match=message) as refused:
        import_weights("lgmsnet", file, tmp_path / "x.lamina")
    assert capsys.readouterr().out == ""
    assert "torch.load" not in str(refused.value)


def test_an_unknown_paper_is_told_whatever_the_file_is(tmp_path):
    with pytest.raises(UnknownNameError, match="Unknown paper 'nope'"):
        import_weights("nope", tmp_path / "gone.pt", tmp_path / "x.lamina")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BundleError, match=r"gone\.pt: cannot be read"):
        import_weights("lgmsnet", tmp_path / "gone.pt", tmp_path / "x.lamina")


def test_an_imported_model_knows_its_weights(checkpoint, tmp_path):
    import_weights("lgmsnet", checkpoint, tmp_path / "x.lamina", task="lgmsnet_btcv")
    network = build_network(load_bundle(tmp_path / "x.lamina"))
    saved = torch.load(checkpoint, weights_only=False)["state_dict"]
    assert torch.equal(network.stem[0].weight, saved["module.stem.conv.0.weight"])
