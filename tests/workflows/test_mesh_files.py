"""From a segmentation in a file to surfaces in files."""

import json

import numpy as np
import pytest

from lamina.files import write_json
from lamina.geometry import affine_from
from lamina.io import write_volume
from lamina.volume import Volume

pytest.importorskip("trimesh")
pytest.importorskip("skimage")


@pytest.fixture
def segmentation(tmp_path):
    array = np.zeros((1, 12, 12, 12), np.uint8)
    array[0, 2:8, 2:8, 2:8] = 3
    array[0, 9:11, 3:9, 3:9] = 7
    write_volume(Volume(array, affine_from((1, 1, 2))), tmp_path / "seg" / "one.nii.gz")
    return tmp_path / "seg" / "one.nii.gz"


def test_names_come_from_what_lies_beside_the_file(cli, segmentation, tmp_path):
    labels = {"background": 0, "liver": 3, "spleen": 7}
    write_json(segmentation.parent / "dataset.json", {"labels": labels})
    done = cli("mesh", segmentation, "-o", tmp_path / "out.glb", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert [s["name"] for s in told["structures"]] == ["liver", "spleen"]
    assert told["structures"][0]["volume_ml"] == pytest.approx(6 * 6 * 6 * 2 / 1000, rel=0.06)
    assert (told["space"], told["unit"], told["files"]) == ("RAS", "mm", [told["out"]])
    assert told["out"] == f"{tmp_path}/out.glb"


def test_without_names_each_value_has_one_and_can_be_chosen(cli, segmentation, tmp_path):
    chosen = ("--structure", "label_7", "--lps", "--smooth")
    done = cli("mesh", segmentation, "-o", tmp_path / "out.stl", *chosen)
    assert done.exit_code == 0
    assert "Surfaces in mm, LPS:" in done.stdout
    assert [path.name for path in tmp_path.glob("*.stl")] == ["out.stl"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--structure", "lung"], "has no structure 'lung'"),
        (["-o", "out.vtk"], "Give one of .glb, .obj, .stl"),
    ],
)
def test_what_cannot_be_done_is_said(cli, segmentation, tmp_path, arguments, said):
    done = cli("mesh", segmentation, "-o", tmp_path / "out.glb", *arguments)
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())


def test_empty_segmentations_and_pictures_have_no_surface(cli, tmp_path):
    write_volume(Volume(np.zeros((1, 4, 4, 4), np.uint8), np.eye(4)), tmp_path / "empty.nii")
    write_json(tmp_path / "dataset.json", {"labels": {"background": 0, "liver": 1}})
    done = cli("mesh", tmp_path / "empty.nii", "-o", tmp_path / "out.glb")
    assert "nothing is segmented of liver" in " ".join(done.stderr.split())
    picture = np.zeros((1, 4, 4), np.uint8)
    write_volume(Volume(picture, np.diag([-1.0, -1, 1, 1]), unit="px"), tmp_path / "flat.png")
    done = cli("mesh", tmp_path / "flat.png", "-o", tmp_path / "out.glb")
    assert "is a picture" in " ".join(done.stderr.split())
    assert not (tmp_path / "out.glb").exists()
