"""Explaining a scan: maps lie on its own grid, and what cannot be explained is said."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest

from lamina.bundle import save_bundle
from lamina.errors import ConfigError, DatasetError, FileError, UnknownNameError
from lamina.files import read_json
from lamina.geometry import affine_along
from lamina.io import read_volume, write_volume
from lamina.volume import Volume
from small_bundles import small_bundle

pytest.importorskip("matplotlib")

from lamina.workflows.explain import explain
from lamina.workflows.predict import predict


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A scan whose axes run to the left, the foot and the back, and begin somewhere."""
    array = np.random.default_rng(0).normal(100, 20, (1, 20, 36, 18)).astype(np.float32)
    affine = affine_along("LIP", (1.0, 1.1, 0.9))
    affine[:3, 3] = 12, -30, 400
    path = tmp_path_factory.mktemp("scan") / "head.nii.gz"
    write_volume(Volume(array, affine), path)
    return path


def saved(folder, name, *, bundle=None, **options):
    bundle = bundle or small_bundle(name, **options)
    plan = replace(bundle.plan, mirror_axes=(0, 1)[: bundle.plan.spatial_dims])
    path = folder / f"{name}.lamina"
    save_bundle(replace(bundle, plan=plan), path)
    return path


@pytest.fixture(scope="module")
def light(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("model"), "lightmedseg")


def check_grid(files, scan):
    image = read_volume(scan)
    for file in files:
        found = read_volume(file)
        assert found.array.shape == image.array.shape
        np.testing.assert_allclose(found.affine, image.affine, atol=1e-5)
        assert np.isfinite(found.array).all()
        yield found.array[0]


def test_gradcam_writes_a_map_per_structure_on_the_scans_grid(light, scan, tmp_path):
    result = explain(light, scan, tmp_path / "why")
    assert result.layer == "decoder.0"
    for array in check_grid(result.maps.values(), scan):
        assert (array.min(), array.max()) == (pytest.approx(0), pytest.approx(1))
    told = read_json(tmp_path / "why" / "head_gradcam.json")
    assert told["maps"].keys() == result.maps.keys() <= {"rim", "core"}
    assert told["model"]["sha256"]
    assert told["flags"] is None
    names = {path.name for path in (tmp_path / "why").iterdir()}
    assert names == {*told["maps"].values(), told["sheet"], "head_gradcam.json"}


def test_uncertainty_is_that_of_all_views_and_by_structure(light, scan, tmp_path):
    result = explain(light, scan, tmp_path, method="uncertainty")
    entropy, apart = check_grid(result.maps.values(), scan)
    assert (apart <= entropy + 1e-5).all()
    assert 0 <= entropy.min() < entropy.max() <= 1 + 1e-5
    for told in result.structures.values():
        assert 0 <= told["disagreement"] <= told["entropy"] <= 1
        assert 0 <= told["agreement"] <= 1


def test_an_ensembles_members_are_views(scan, tmp_path):
    model = saved(tmp_path, "lightmedseg", members=2)
    result = explain(model, scan, tmp_path / "why", method="uncertainty")
    assert result.maps.keys() == {"entropy", "disagreement"}
    assert not result.remarks
    first = explain(model, scan, tmp_path / "why")
    assert first.maps
    assert first.remarks[0] == "Maps are of the first of 2 members of the ensemble."


def test_uncertainty_measures_the_segmentation_that_predict_gives(light, scan, tmp_path):
    result = explain(light, scan, tmp_path, method="uncertainty")
    (outcome,) = predict(light, scan, out=tmp_path / "out").outcomes
    found = {name: told["size"] for name, told in result.structures.items()}
    assert found == {name: size for name, size in outcome.sizes.items() if size}


def test_attention_is_that_of_the_network(light, scan, tmp_path):
    result = explain(light, scan, tmp_path, method="attention", layer="lspm.mixture")
    one, two = check_grid(result.maps.values(), scan)
    np.testing.assert_allclose(one + two, 1, atol=1e-4)
    with pytest.raises(UnknownNameError, match="Did you mean lspm.mixture"):
        explain(light, scan, tmp_path, method="attention", layer="lspm.mixtur")


def test_a_transformers_heads_are_shown_of_the_network_that_reads_them(tmp_path):
    model = saved(tmp_path, "dainet", attention_maps=2, width=4)
    array = np.random.default_rng(0).normal(size=(1, 40, 36)).astype(np.float32)
    write_volume(Volume(array, affine_along("RA", (1.0, 1.0))), tmp_path / "slice.nii.gz")
    result = explain(model, tmp_path / "slice.nii.gz", tmp_path / "why", method="attention")
    assert [*result.maps] == ["vit.heads 1", "vit.heads 2"]
    for map_ in check_grid(result.maps.values(), tmp_path / "slice.nii.gz"):
        assert 0 <= map_.min() < map_.max() <= 1


def test_channels_in_files_of_their_own_are_one_scan(tmp_path):
    model = saved(tmp_path, "lightmedseg", bundle=small_bundle("lightmedseg", channels=2))
    for number in range(2):
        array = np.random.default_rng(number).normal(size=(1, 20, 18, 36)).astype(np.float32)
        write_volume(Volume(array, np.eye(4)), tmp_path / "in" / f"leg_{number:04d}.nii.gz")
    for scan in ("in", "in/leg_0000.nii.gz"):
        result = explain(model, tmp_path / scan, tmp_path / "why", method="uncertainty")
        assert result.case_id == "leg"


def test_regions_are_explained_where_the_network_says_regions(scan, tmp_path):
    model = saved(tmp_path, "lightmedseg", regions=True)
    result = explain(model, scan, tmp_path / "why", structures=["whole"])
    assert [*result.maps] == ["whole"]
    with pytest.raises(UnknownNameError, match="'rim'"):
        explain(model, scan, tmp_path / "why", structures=["rim"])


def test_maps_of_a_picture_are_pictures(tmp_path):
    bundle = small_bundle("lgmsnet_2d")
    bundle = replace(bundle, plan=replace(bundle.plan, unit="px", orientation="LP"))
    model = saved(tmp_path, "lgmsnet_2d", bundle=bundle)
    pixels = np.random.default_rng(0).integers(0, 255, (1, 40, 36)).astype(np.uint8)
    picture = Volume(pixels, np.diag([-1.0, -1, 1, 1]), unit="px")
    write_volume(picture, tmp_path / "photo.png")
    result = explain(model, tmp_path / "photo.png", tmp_path / "why", method="uncertainty")
    entropy = read_volume(result.maps["entropy"])
    assert entropy.array.shape == pixels.shape
    assert entropy.array.max() == 65535
    assert result.unit == "px"


def test_a_picture_is_explained_once_its_pixels_have_a_size(cli, tmp_path):
    bundle = small_bundle("lgmsnet_2d")
    bundle = replace(bundle, plan=replace(bundle.plan, orientation="LP"))
    model = saved(tmp_path, "lgmsnet_2d", bundle=bundle)
    pixels = np.random.default_rng(0).integers(0, 255, (1, 40, 36)).astype(np.uint8)
    write_volume(Volume(pixels, np.diag([-1.0, -1, 1, 1]), unit="px"), tmp_path / "ultrasound.png")
    asked = ("explain", "-m", model, "-i", tmp_path / "ultrasound.png", "-o", tmp_path / "why")
    asked += ("--method", "uncertainty")
    refused = cli(*asked)
    assert refused.exit_code
    assert "Tell the side of its pixels: --pixel-size," in " ".join(refused.stderr.split())
    assert cli(*asked, "--pixel-size", "0.5", "--json").exit_code == 0
    told = read_json(tmp_path / "why" / "ultrasound_uncertainty.json")
    assert told["unit"] == "cm²"
    entropy = read_volume(tmp_path / "why" / "ultrasound_uncertainty_entropy.tif")
    assert (entropy.unit, entropy.array.shape) == ("px", pixels.shape)
    assert cli(*asked, "--pixel-size", "-1").exit_code


@pytest.fixture
def tilted(scan, tmp_path):
    leaning = read_volume(scan)
    leaning.affine[2, 0] = 0.2
    write_volume(leaning, tmp_path / "tilted.nii.gz")
    return tmp_path / "tilted.nii.gz"


@pytest.mark.parametrize("method", ["gradcam", "attention", "uncertainty"])
def test_a_tilted_scan_is_explained_on_its_own_grid(cli, light, tilted, tmp_path, method):
    asked = ("explain", "-m", light, "-i", tilted, "-o", tmp_path / "why")
    refused = cli(*asked, "--method", method)
    assert refused.exit_code
    assert "--resample-oblique" in refused.stderr
    done = cli(*asked, "--method", method, "--resample-oblique", "--json")
    told = json.loads(done.stdout)
    files = [tmp_path / "why" / name for name in told["maps"].values()]
    for array in check_grid(files, tilted):
        assert array.max() > 0
    (outcome,) = predict(light, tilted, out=tmp_path / "out", resample_oblique=True).outcomes
    found = {name: known["size"] for name, known in told["structures"].items()}
    assert found == {name: size for name, size in outcome.sizes.items() if size}


def test_a_prediction_into_the_same_folder_meanwhile_does_no_harm(light, scan, tilted, tmp_path):
    out, done = tmp_path / "both", []

    def progress(*told):
        if not done:
            done.append(predict(light, scan, out=out))

    result = explain(light, tilted, out, resample_oblique=True, progress=progress)
    assert not done[0].failures
    assert all(path.is_file() for path in result.maps.values())
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("method", ["gradcam", "uncertainty"])
def test_what_is_held_on_the_disk_has_no_name_that_a_killed_process_leaves(
    light, tilted, tmp_path, method
):
    out, seen = tmp_path / "why", []

    def progress(*told):
        seen.append([*out.iterdir()])

    explain(light, tilted, out, method=method, resample_oblique=True, progress=progress)
    assert seen
    assert not any(seen)


def test_a_full_disk_is_told_before_maps_are_made(light, scan, tmp_path, monkeypatch):
    def full(descriptor, start, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(FileError, match="why: no space left on the disk"):
        explain(light, scan, tmp_path / "why", method="uncertainty")
    assert not any((tmp_path / "why").iterdir())


def test_a_folder_that_cannot_be_written_is_told_as_such(light, scan, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="file: is a file"):
        explain(light, scan, tmp_path / "file" / "why")


def test_maps_are_not_laid_among_the_scans(light, scan):
    before = set(scan.parent.iterdir())
    with pytest.raises(FileError, match="is the folder of the scan.*a folder of its own"):
        explain(light, scan, scan.parent)
    assert set(scan.parent.iterdir()) == before


def test_maps_of_names_that_look_alike_have_files_of_their_own(scan, tmp_path):
    bundle = small_bundle("lightmedseg")
    labels = replace(bundle.plan.labels, values={"GTV (1)": 1, "GTV [1]": 2}, regions={})
    bundle = replace(bundle, plan=replace(bundle.plan, labels=labels))
    result = explain(saved(tmp_path, "lightmedseg", bundle=bundle), scan, tmp_path / "why")
    assert len(result.maps) == len({*result.maps.values()}) == 2
    assert all(path.is_file() for path in result.maps.values())


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"method": "guess"}, ConfigError, "method 'guess' is unknown"),
        ({"method": "uncertainty", "layer": "x"}, ConfigError, "looks at no layer"),
        ({"method": "attention", "structures": ["rim"]}, ConfigError, "not of single ones"),
        ({"layer": "decodr.0"}, UnknownNameError, "Did you mean decoder.0"),
        ({"structures": ["rimm"]}, UnknownNameError, "Did you mean rim"),
    ],
)
def test_what_does_not_fit_together_is_refused(light, scan, tmp_path, settings, error, message):
    with pytest.raises(error) as caught:
        explain(light, scan, tmp_path / "why", **settings)
    assert message in str(caught.value)
    assert not (tmp_path / "why").exists() or not any((tmp_path / "why").iterdir())


def test_a_network_without_attention_and_a_folder_of_scans_are_refused(scan, tmp_path):
    model = saved(tmp_path, "lgmsnet_3d")
    with pytest.raises(ConfigError, match="has no attention of its own"):
        explain(model, scan, tmp_path / "why", method="attention")
    for name in ("a", "b"):
        (tmp_path / "scans").mkdir(exist_ok=True)
        (tmp_path / "scans" / f"{name}.nii.gz").write_bytes(scan.read_bytes())
    with pytest.raises(DatasetError, match="holds 2 scans"):
        explain(model, tmp_path / "scans", tmp_path / "why")


def test_the_program_says_what_it_found(cli, light, scan, tmp_path):
    done = cli(
        "explain", "-m", light, "-i", scan, "-o", tmp_path, "--method", "uncertainty", "--json"
    )
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert (told["method"], told["out"]) == ("uncertainty", str(tmp_path))
    shown = cli("explain", "-m", light, "-i", scan, "-o", tmp_path, "--structure", "core")
    assert "1 maps of decoder.0" in shown.stdout
    assert "does not know the range" in shown.stdout


def test_predict_flags_scans_unlike_those_of_training(cli, tiny_run, tiny_dataset, tmp_path):
    first = read_volume(tiny_dataset / "imagesTr" / "ball_000.nii.gz")
    for name, scale in (("usual", 1), ("thick", 3)):
        affine = first.affine @ np.diag([1, 1, scale, 1])
        write_volume(replace(first, affine=affine), tmp_path / "scans" / f"{name}.nii.gz")
    done = cli("predict", "-m", tiny_run, "-i", tmp_path / "scans", "-o", tmp_path / "out")
    thick, usual = read_json(tmp_path / "out" / "prediction.json")["cases"]
    assert {f["subject"] for f in thick["flags"] if f["kind"] == "spacing"} == {"from head to foot"}
    assert not [f for f in usual["flags"] if f["kind"] in ("spacing", "extent", "intensity")]
    assert usual["sizes"].keys() == {"large", "small"}
    assert thick["image"] == str(tmp_path / "scans" / "thick.nii.gz")
    assert "Voxels are 6 mm from head to foot" in done.stdout


def test_predict_looks_for_disagreement_where_it_looks_twice(light, scan, tmp_path):
    from lamina.workflows.predict import predict

    (once,) = predict(light, scan, out=tmp_path / "once").outcomes
    (again,) = predict(light, scan, out=tmp_path / "again", tta=True).outcomes
    (limited,) = predict(light, scan, out=tmp_path / "limited", tta=True, ram_bytes=64e9).outcomes
    assert once.flags is None
    assert {flag["kind"] for flag in again.flags} <= {"disagreement"}
    assert limited.flags == again.flags
    written = [tmp_path / name / "head.nii.gz" for name in ("again", "limited")]
    assert written[0].read_bytes() == written[1].read_bytes()
