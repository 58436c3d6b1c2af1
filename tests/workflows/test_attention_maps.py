"""Maps are drawn once of every prepared scan, slice by slice, by the transformer that is kept."""

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lamina.data.cache import PreparedCase
from lamina.data.views import intensity_range, normalised, to_unit
from lamina.errors import BundleError, ConfigError, DatasetError
from lamina.files import read_json, write_json
from lamina.folders.transformer import read_vit, write_vit
from lamina.inference.attention_maps import MapMaker
from lamina.models.vit import ViTConfig, attention_maps
from lamina.workflows.attention_maps import draw_maps

TINY = ViTConfig(image_size=32, token_size=8, width=24, depth=2, num_heads=3)


@pytest.fixture
def maker():
    torch.manual_seed(0)
    vit = TINY.build().eval()
    for parameter in vit.parameters():  # fresh weights look everywhere alike
        parameter.data.mul_(5)
    return MapMaker(vit=vit, mean=(0.5,) * 3, std=(0.25,) * 3, origin={"start": "scratch"}, size=32)


@pytest.fixture
def vit(maker, tmp_path):
    write_vit(maker, tmp_path / "vit.safetensors")
    return tmp_path / "vit.safetensors"


@pytest.fixture
def work(tiny_work, tmp_path):
    return shutil.copytree(tiny_work, tmp_path / "work")


def prepared(work):
    return [PreparedCase(folder) for folder in sorted((work / "cases").iterdir())]


def test_every_slice_has_its_own_maps_from_dark_to_bright(work, vit, maker):
    made = draw_maps(work, vit, size=32)
    assert (made.drawn, made.kept, made.num_heads, made.from_scratch) == (6, 0, 3, True)
    case = prepared(work)[2]
    maps = np.load(case.folder / "maps.npy")
    assert maps.dtype == np.uint8
    assert maps.shape == (3, *case.image.shape[1:])
    assert (maps.min((1, 2)) == 0).all()
    assert (maps.max((1, 2)) == 255).all()
    slice_ = to_unit(case.image, intensity_range(case.image))[..., 5]
    alone = attention_maps(
        maker.vit, normalised(slice_, maker.mean, maker.std)[None], slice_.shape[1:], vit_size=32
    )
    assert np.abs(maps[..., 5] - 255 * alone[0].numpy()).max() <= 1


def test_slices_run_along_the_axis_that_is_asked_for_and_pictures_are_one(maker):
    volume = np.random.default_rng(0).normal(size=(2, 16, 24, 32)).astype(np.float32)
    across = maker.draw(volume, 1)
    assert across.shape == (3, 16, 24, 32)
    turned = maker.draw(np.ascontiguousarray(np.moveaxis(volume, 2, 3)), 2)
    np.testing.assert_array_equal(across, np.moveaxis(turned, 3, 2))
    assert maker.draw(volume[:, 0], None).shape == (3, 24, 32)


def test_maps_do_not_depend_on_a_scan_s_units(maker):
    image = np.random.default_rng(0).normal(size=(1, 16, 16)).astype(np.float32)
    other = maker.draw(300 * image - 1000, None).astype(int)
    assert np.abs(other - maker.draw(image, None)).max() <= 1


def test_a_second_run_keeps_what_is_there_and_other_maps_replace_it(work, vit):
    draw_maps(work, vit, size=32)
    case = prepared(work)[0]
    before = np.load(case.folder / "maps.npy")
    (case.folder / "maps.npy").unlink()
    again = draw_maps(work, vit, size=32)
    assert (again.drawn, again.kept) == (1, 5)
    assert read_vit(work).key() == read_vit(vit).key()
    assert draw_maps(work, vit, size=64, upsample="bilinear").drawn == 6
    assert not np.array_equal(np.load(case.folder / "maps.npy"), before)
    assert (read_vit(work).size, read_vit(work).upsample) == (64, "bilinear")


def test_an_interrupted_run_leaves_no_transformer_and_goes_on(work, vit):
    def stop(done, total, what):
        if done == 4:
            raise KeyboardInterrupt

    draw_maps(work, vit, size=64)
    with pytest.raises(KeyboardInterrupt):
        draw_maps(work, vit, size=32, progress=stop)
    assert not (work / "vit.safetensors").exists()
    made = draw_maps(work, vit, size=32)
    assert (made.drawn, made.kept) == (2, 4)


def test_an_interrupted_run_with_the_work_folder_s_own_transformer_keeps_it(work, vit, maker):
    def stop(done, total, what):
        if done == 2:
            raise KeyboardInterrupt

    draw_maps(work, vit, size=32)
    for own in (work, work / "vit.safetensors"):
        with pytest.raises(KeyboardInterrupt):
            draw_maps(work, own, size=64, progress=stop)
    assert not (work / "vit.safetensors").exists()
    made = draw_maps(work, work, size=64)
    assert (made.drawn, made.kept) == (4, 2)
    assert read_vit(work).key() == replace(maker, size=64).key()
    assert [path.name for path in work.glob("vit*")] == ["vit.safetensors"]


def test_a_damaged_copy_of_the_transformer_is_replaced(work, vit):
    draw_maps(work, vit, size=32)
    copy = work / "vit.safetensors"
    copy.write_bytes(copy.read_bytes()[:100])
    assert draw_maps(work, vit, size=32).kept == 6
    assert read_vit(work).key() == read_vit(vit).key()


def test_a_transformer_is_read_as_it_was_written(maker, vit):
    read = read_vit(vit)
    assert read.describe() == replace(maker, size=32).describe()
    assert read.key() == maker.key()
    assert read_vit(vit.parent).key() == maker.key()


def test_imported_weights_expect_the_colours_of_published_ones(maker, tmp_path):
    file = tmp_path / "imported.safetensors"
    about = {"network": "vit", "fields": json.dumps(asdict(TINY))}
    save_file(maker.vit.state_dict(), file, metadata=about)
    read = read_vit(file)
    assert read.mean == (0.485, 0.456, 0.406)
    assert not read.from_scratch
    assert read.size == 256


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:1000]), "is no transformer of Lamina's"),
        (lambda file: file.write_text("{}"), "is no transformer of Lamina's"),
        (lambda file: save_file({"a": torch.zeros(1)}, file), "is no transformer of Lamina's"),
        (
            lambda file: save_file(
                {"a": torch.zeros(1)}, file, metadata={"fields": json.dumps(asdict(TINY))}
            ),
            "weights are not those of the transformer",
        ),
        (
            lambda file: save_file({}, file, metadata={"fields": '{"depth": 0}'}),
            "is no transformer of Lamina's",
        ),
        (lambda file: file.unlink(), "no such file"),
    ],
)
def test_what_is_no_transformer_is_refused(vit, spoil, message):
    spoil(vit)
    with pytest.raises(BundleError, match=f"vit.safetensors: .*{message}"):
        read_vit(vit)


def test_wrong_requests_change_nothing(work, vit, tmp_path):
    with pytest.raises(ConfigError, match="size = 36: must be a multiple of 8"):
        draw_maps(work, vit, size=36)
    with pytest.raises(BundleError, match="holds no finished transformer"):
        draw_maps(work, work)
    with pytest.raises(DatasetError, match="not a prepared dataset"):
        draw_maps(tmp_path / "nowhere", vit)
    assert not list(work.rglob("maps.*"))


def test_the_program_says_whose_maps_they_are(cli, work, vit):
    said = cli("attention-maps", work, "--vit", vit, "--size", 32)
    assert said.exit_code == 0
    assert "seen nothing but these scans" in said.stdout
    again = cli("attention-maps", work, "--vit", vit, "--size", 32, "--json")
    told = json.loads(again.stdout)
    assert (told["out"], told["kept"]) == (str(work), 6)
    refused = cli("attention-maps", work, "--vit", work / "plan.json")
    assert refused.exit_code == 2
    assert "import-weights --from dino" in refused.stderr


def test_a_record_of_other_maps_is_not_believed(work, vit):
    draw_maps(work, vit, size=32)
    case = prepared(work)[0]
    record = read_json(case.folder / "maps.json")
    write_json(case.folder / "maps.json", record | {"slice_axis": 0})
    assert draw_maps(work, vit, size=32).drawn == 1
