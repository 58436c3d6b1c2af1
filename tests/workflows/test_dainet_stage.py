"""DAI-Net trains on attention maps, and its model draws them of every scan it segments."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import lamina
from lamina.bundle import build_network, load_bundle, model_card, save_bundle
from lamina.data.augment import NO_AUGMENTATION
from lamina.data.cache import open_cases
from lamina.data.patches import PatchDataset
from lamina.data.sampling import PatchSampler
from lamina.errors import BundleError, ConfigError, DatasetError, TrainingError
from lamina.files import read_json, sha256, write_json
from lamina.folders.all_folds import AllFolds
from lamina.folders.run import RunFolder
from lamina.folders.transformer import read_vit, transformer_for, write_vit
from lamina.folders.work import WorkFolder
from lamina.inference.attention_maps import MapMaker
from lamina.models import NETWORKS
from lamina.models.vit import ViTConfig
from lamina.workflows.attention_maps import draw_maps
from lamina.workflows.cross_validation.ensembles import ensemble
from lamina.workflows.prepare import prepare
from lamina.workflows.train import train

SETTINGS = {"model_options": {"width": 4}, "epochs": 1, "steps_per_epoch": 2, "batch_size": 2}


def make_vit(file, num_heads=6, **origin):
    torch.manual_seed(0)
    config = ViTConfig(image_size=32, token_size=8, width=24, depth=2, num_heads=num_heads)
    vit = config.build().eval()
    for parameter in vit.parameters():  # fresh weights look everywhere alike
        parameter.data.mul_(5)
    write_vit(MapMaker(vit=vit, origin=origin), file)
    return file


@pytest.fixture(scope="module")
def bare(tiny_dataset, tmp_path_factory):
    """Scans prepared for DAI-Net, without maps."""
    work = tmp_path_factory.mktemp("dainet") / "work"
    prepare(tiny_dataset, work, model="dainet", ram_bytes=4e9, num_folds=3, workers=0)
    return work


@pytest.fixture(scope="module")
def mapped(bare):
    """The same with maps."""
    work = shutil.copytree(bare, bare.parent / "mapped")
    origin = {"start": "scratch", "slices": 64, "fold": 0, "splits": sha256(work / "splits.json")}
    draw_maps(work, make_vit(bare.parent / "vit.safetensors", **origin), size=32)
    return work


@pytest.fixture(scope="module")
def run(mapped):
    out = mapped.parent / "run"
    train(mapped, out, SETTINGS)
    return out


def test_a_model_draws_the_very_maps_it_was_trained_on(mapped, run, tiny_dataset, tmp_path):
    alone = shutil.copy(run / "model.lamina", tmp_path / "alone.lamina")
    model, seen = lamina.load(alone, device="cpu"), []
    predictor = model.predictor

    def watch(network):
        def record(batch):
            seen.append(torch.from_numpy(batch.copy()))
            return network(batch)

        return record

    watched = replace(predictor, network=watch(predictor.network))
    scan = tiny_dataset / "imagesTr" / "ball_001.nii.gz"
    found = watched(lamina.read_volume(scan))
    assert found.spatial_shape == (32, 32, 16)
    (case,) = open_cases(mapped / "cases", ("ball_001",), with_maps=True)
    inputs = torch.cat(seen)
    whole = torch.from_numpy(case.read()).movedim(-1, 0)
    assert inputs.shape == whole.shape == (16, 7, 32, 32)
    assert torch.equal(inputs, whole)
    assert whole[:, 1:].amax() == 1


def test_a_model_says_whose_maps_it_reads_and_does_not_work_without(run, tmp_path):
    bundle = load_bundle(run / "model.lamina")
    assert bundle.network["attention"]["origin"]["start"] == "scratch"
    torn = {name: x for name, x in bundle.weights.items() if not name.startswith("vit/")}
    save_bundle(replace(bundle, weights=torn), tmp_path / "torn.lamina")
    with pytest.raises(BundleError, match="reads attention maps, and the transformer"):
        lamina.load(tmp_path / "torn.lamina")
    assert "trained from scratch on 64 slices of the training scans" in model_card(bundle)


def test_maps_move_with_their_image_and_keep_their_values(mapped, tmp_path):
    """With the image itself for a map, both must show the same in every patch."""
    folder = shutil.copytree(mapped / "cases" / "ball_001", tmp_path / "cases" / "ball_001")
    image = np.load(folder / "image.npy")
    low, high = image.min(), image.max()
    np.save(folder / "maps.npy", np.round(255 * (image - low) / (high - low)).astype(np.uint8))
    cases = open_cases(folder.parent, ("ball_001",), with_maps=True)
    assert cases[0].num_maps == 1
    sampler = PatchSampler(
        cases=cases, patch_size=(24, 24, 1), batch_size=1, seed=0, oversample_foreground=0.5
    )
    moving = replace(NO_AUGMENTATION, p_affine=1, p_mirror=0.5, p_quarter_turn=0.5)
    for augmentation in (NO_AUGMENTATION, moving, replace(moving, p_brightness=1)):
        patches = PatchDataset(
            sampler=sampler,
            augmentation=augmentation,
            mirror_axes=(0, 1),
            slice_axis=2,
            untouched_channels=1,
        )
        for number in range(5):
            patch, _ = patches[number]
            shown = (patch[0] - low) / (high - low)
            if augmentation.p_brightness:
                assert np.corrcoef(patch.flatten(1).numpy())[0, 1] > 0.999
                assert 0 <= patch[1].min() <= patch[1].max() <= 1
            else:
                torch.testing.assert_close(patch[1], shown, rtol=0, atol=0.003)


def test_without_fitting_maps_nothing_is_trained(bare, mapped, tmp_path):
    with pytest.raises(ConfigError, match=r"reads 6 attention maps .* have none\. Run lamina pre"):
        train(bare, tmp_path / "run", SETTINGS)
    options = {"model_options": {"width": 4, "attention_maps": 3}}
    with pytest.raises(ConfigError, match=r"cases have 6\. Set model_options\.attention_maps=6"):
        train(mapped, tmp_path / "run", SETTINGS | options)
    work = shutil.copytree(mapped, tmp_path / "work")
    (work / "cases" / "ball_001" / "maps.npy").unlink()
    with pytest.raises(DatasetError, match="1 cases have no attention maps: .'ball_001'"):
        train(work, tmp_path / "run", SETTINGS)
    assert not (tmp_path / "run").exists()
    train(bare, tmp_path / "run", SETTINGS | {"model": "dainet_unet"})


def test_training_says_what_the_maps_have_seen(mapped, run, tmp_path, caplog):
    train(mapped, run, {}, resume=True)
    assert "trained from scratch" in caplog.text
    assert "of fold" not in caplog.text
    train(mapped, tmp_path / "run", SETTINGS, fold=1)
    assert "has seen validation scans of fold 1, without their labels" in caplog.text


def test_maps_of_a_transformer_of_other_splits_are_not_trusted_in_silence(mapped, tmp_path, caplog):
    work = shutil.copytree(mapped, tmp_path / "work")
    write_json(work / "splits.json", read_json(work / "splits.json")[::-1])
    transformer_for(WorkFolder(work), NETWORKS.get("dainet")(1, 2), 0)
    assert "was trained by other splits: it may have seen validation scans" in caplog.text


def test_out_of_fold_scores_say_what_the_maps_have_seen(mapped, run, tmp_path):
    folder = WorkFolder(mapped)
    shutil.copytree(run, tmp_path / "fold_0")
    record = {
        "trained": {"0": 0.5},
        "hashes": {"splits.json": sha256(folder.splits_file)},
        "dataset": {"name": "Tiny"},
    }
    whole = AllFolds(folder, RunFolder(tmp_path), (), record)
    assert "trained, without labels, on the training scans of fold 0" in whole.seen_beforehand
    record["hashes"]["splits.json"] = "other"
    assert "without labels, by other splits, and may have seen these" in whole.seen_beforehand


def test_a_run_is_resumed_with_its_own_maps_alone(mapped, run, tmp_path):
    work = shutil.copytree(mapped, tmp_path / "work")
    draw_maps(work, mapped, size=64)
    with pytest.raises(TrainingError, match="was trained on other attention maps"):
        train(work, run, {"epochs": 2}, resume=True)
    assert read_vit(run).size == 32
    assert read_json(run / "manifest.json")["network"]["attention"]["size"] == 32


def test_an_ensemble_draws_the_maps_once_for_all_its_members(mapped, run, tmp_path, tiny_dataset):
    train(mapped, tmp_path / "fold_1", SETTINGS | {"steps_per_epoch": 1})
    runs = [RunFolder(run), RunFolder(tmp_path / "fold_1")]
    save_bundle(ensemble(runs, {}), tmp_path / "both.lamina")
    both, alone = load_bundle(tmp_path / "both.lamina"), load_bundle(runs[0].bundle_file)
    vit = {name for name in alone.weights if name.startswith("vit/")}
    assert len(both.weights) == 2 * (len(alone.weights) - len(vit)) + len(vit)
    image = torch.randn(1, 7, 32, 32)
    with torch.no_grad():
        single = [build_network(load_bundle(each.bundle_file))(image) for each in runs]
        assert torch.equal(build_network(both)(image), torch.stack(single).mean(0))
    scan = tiny_dataset / "imagesTr" / "ball_001.nii.gz"
    found = lamina.load(tmp_path / "both.lamina", device="cpu").predict(scan)
    assert found.spatial_shape == (32, 32, 16)
