"""The papers' protocols from folders named as the downloads are, in one command."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from lamina.files import read_json, write_json
from lamina.folders.work import WorkFolder
from lamina.geometry import affine_from
from lamina.io import write_volume
from lamina.volume import Volume

SIZE = (16, 16, 16)


def scan(path, values=(), channels=1):
    """Write an image of some channels, or a label map of boxes of these values."""
    affine = affine_from((1.0, 1.0, 1.0))
    if not values:
        noise = np.random.default_rng(0).normal(100, 10, (channels, *SIZE))
        write_volume(Volume(noise.astype(np.float32), affine), path)
        return
    label = np.zeros(SIZE, np.uint8)
    for number, value in enumerate(values):
        label[number, 4:9, 4:9] = value
    write_volume(Volume(label[None], affine), path)


def picture(path, lesion=False):
    pixels = np.zeros((32, 32) if lesion else (32, 32, 3), np.uint8)
    pixels[8:20, 8:20] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def brats(folder):
    for number in range(6):
        name = f"BraTS2021_{number:05d}"
        for part in ("flair", "t1ce", "t1", "t2"):
            scan(folder / name / f"{name}_{part}.nii.gz")
        scan(folder / name / f"{name}_seg.nii.gz", (1, 2, 4))


def hearts(folder):
    for number in (1, 2, 4, 89, 101):
        name = f"patient{number:03d}"
        for frame in ("01", "12"):
            scan(folder / name / f"{name}_frame{frame}.nii.gz")
            scan(folder / name / f"{name}_frame{frame}_gt.nii.gz", (1, 2, 3))
        scan(folder / name / f"{name}_4d.nii.gz", channels=2)


def livers(folder):
    for number in (0, 1, 2, 27, 46, 130):
        scan(folder / f"volume-{number}.nii")
        scan(folder / f"segmentation-{number}.nii", (1, 2))


def kidneys(folder):
    for number in range(5):
        scan(folder / f"case_{number:05d}" / "imaging.nii.gz")
        scan(folder / f"case_{number:05d}" / "segmentation.nii.gz", (1, 2, 3))


def breasts(folder):
    for kind in ("benign", "malignant", "normal"):
        for number in range(1, 4):
            picture(folder / kind / f"{kind} ({number}).png")
            picture(folder / kind / f"{kind} ({number})_mask.png", lesion=True)
    picture(folder / "benign" / "benign (1)_mask_1.png", lesion=True)


def polyps(folder):
    for letter in "abcdefg":
        name = f"cju0qkwl35piu0993l0dewe{letter}2"
        picture(folder / "images" / f"{name}.jpg")
        picture(folder / "masks" / f"{name}.jpg", lesion=True)


def decathlon(folder):
    names = [f"BRATS_{number:03d}" for number in (1, 2, 11, 58)]
    for name in names:
        scan(folder / "imagesTr" / f"{name}.nii.gz", channels=4)
        scan(folder / "labelsTr" / f"{name}.nii.gz", (1, 2, 3))
    entry = {"image": "./imagesTr/{}.nii.gz", "label": "./labelsTr/{}.nii.gz"}
    description = {
        "name": "BRATS",
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing"},
        "training": [{key: path.format(name) for key, path in entry.items()} for name in names],
    }
    write_json(folder / "dataset.json", description)


def abdomens(folder):
    for number in (1, 5, 6, 40):
        scan(folder / "images" / f"img{number:04d}.nii.gz")
        scan(folder / "labels" / f"img{number:04d}.nii.gz", range(1, 14))


@dataclass(frozen=True)
class Expected:
    """What a command makes of a folder; sides are those of the paper where there are any."""

    dataset: str
    train: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    divided: int = 0
    outputs: int = 2
    """Channels of the network's output: regions, or the background and all structures."""
    voxels: int = 75
    """Of one case that are labelled in what is trained on."""
    schemes: tuple[str, ...] = ("ct",)
    missing: int = 0
    surplus: int = 0


CASES = [
    (brats, "glims", Expected("brats2021", divided=6, outputs=3, schemes=("zscore",) * 4)),
    (
        hearts,
        "lightmedseg",
        Expected(
            "acdc",
            train=("patient001_frame01", "patient001_frame12")
            + ("patient004_frame01", "patient004_frame12"),
            val=("patient089_frame01", "patient089_frame12"),
            test=("patient002_frame01", "patient002_frame12"),
            outputs=4,
            schemes=("zscore",),
            missing=96,
            surplus=2,
        ),
    ),
    (
        livers,
        "mpunet",
        Expected("lits", test=("volume-27", "volume-46"), divided=4, voxels=50, missing=125),
    ),
    (kidneys, "lgmsnet", Expected("kits23", divided=5, outputs=4)),
    (
        breasts,
        "lgmsnet",
        Expected("busi", divided=6, voxels=144, schemes=("zscore",) * 3, surplus=3),
    ),
    (polyps, "lgmsnet", Expected("kvasir_seg", divided=7, voxels=144, schemes=("zscore",) * 3)),
    (
        decathlon,
        "lightmedseg",
        Expected(
            "msd_task01",
            train=("BRATS_001", "BRATS_002"),
            val=("BRATS_058",),
            test=("BRATS_011",),
            outputs=4,
            schemes=("zscore",) * 4,
            missing=480,
        ),
    ),
    (
        abdomens,
        "dainet",
        Expected(
            "synapse",
            train=("img0006", "img0040"),
            val=("img0005",),
            test=("img0001",),
            outputs=9,
            voxels=200,
            missing=26,
        ),
    ),
    (abdomens, "glims", Expected("btcv", divided=4, outputs=14, voxels=325, missing=26)),
]


@pytest.fixture
def prepared(cli, tmp_path):
    """Make a folder, prepare it with a protocol and more arguments, and return what is told."""

    def run(make, paper, *arguments):
        make(tmp_path / "download")
        command = [
            "prepare",
            tmp_path / "download",
            "--out",
            tmp_path / "work",
            "--no-rehearse",
            "--workers",
            0,
        ]
        return cli(*command, "--ram", "4G", "--protocol", paper, *arguments)

    return run


@pytest.mark.parametrize(("make", "paper", "expected"), CASES)
def test_a_download_becomes_what_the_paper_used(make, paper, expected, prepared, tmp_path):
    model = "unext" if make in (breasts, polyps) else "tinyunet"
    done = prepared(make, paper, "--json", "--model", model)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    protocol = told["protocol"]
    assert (protocol["paper"], protocol["dataset"]) == (paper, expected.dataset)
    assert len(protocol["missing"]) == expected.missing
    assert len(protocol["surplus"]) == expected.surplus
    assert told["failures"] == {}
    for departure in protocol["departures"]:
        assert f"Warning: {expected.dataset} as {paper} used it: {departure}" in done.stderr
    work = WorkFolder(tmp_path / "work")
    assert read_json(work.protocol_file) == protocol
    folds = read_json(work.splits_file)
    assert [*folds[0].get("test", [])] == [*expected.test]
    if expected.divided:
        assert len({case for fold in folds for case in fold["val"]}) == expected.divided
        assert any("split is not the paper's" in said for said in protocol["departures"])
    else:
        assert folds == [
            {side: [*getattr(expected, side)] for side in ("train", "val", "test")},
        ]
    plan = work.plan()
    assert plan.num_outputs == expected.outputs
    assert tuple(how.scheme for how in plan.normalisation) == expected.schemes
    stored = {path.name: path for path in work.cache.iterdir()}
    assert stored.keys() == {*folds[0]["train"], *folds[0]["val"]}
    label = np.load(stored[folds[0]["train"][0]] / "label.npy")
    assert np.count_nonzero(label) == expected.voxels
    assert label.max() <= len(plan.labels.values)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--folds", 3], "protocol dainet: brings the paper's own split of synapse."),
        (["--splits", "s.json"], "Leave out the file of splits and the number of folds."),
        (["--dataset", "lits"], "'dainet' has no protocol for it"),
        (["--dataset", "synaps"], "Did you mean synapse"),
    ],
)
def test_contradictions_are_refused_before_any_scan_is_read(arguments, message, prepared, tmp_path):
    done = prepared(abdomens, "dainet", *arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
    assert not (tmp_path / "work").exists()


def test_a_dataset_without_a_protocol_is_refused(cli, tiny_dataset, tmp_path):
    done = cli("prepare", tiny_dataset, "--out", tmp_path / "work", "--dataset", "lits")
    assert (done.exit_code, "Give a protocol" in done.stderr) == (2, True)
    done = cli("prepare", tiny_dataset, "--out", tmp_path / "work", "--protocol", "glims")
    assert "by the names of its cases it is no dataset" in done.stderr


def test_the_authors_lists_are_taken_where_they_are_not_kept_here(prepared, tmp_path):
    fold = {"train": ["benign (1)", "malignant (2)"], "val": ["benign (2)"]}
    write_json(tmp_path / "lists.json", [fold])
    done = prepared(breasts, "lgmsnet", "--splits", tmp_path / "lists.json", "--model", "unext")
    assert done.exit_code == 0
    assert read_json(tmp_path / "work" / "splits.json") == [fold]


def test_a_folder_of_other_names_is_what_it_is_said_to_be(cli, tmp_path):
    for name in ("scan_1", "scan_2", "scan_3"):
        scan(tmp_path / "mine" / "images" / f"{name}.nii.gz")
        scan(tmp_path / "mine" / "labels" / f"{name}.nii.gz", (1, 2, 3))
    command = [
        "prepare",
        tmp_path / "mine",
        "--out",
        tmp_path / "work",
        "--no-rehearse",
        "--protocol",
        "lgmsnet",
    ]
    done = cli(*command, "--dataset", "kits23")
    assert done.exit_code == 2
    assert "Cases of kits23 are called case_00000" in " ".join(done.stderr.split())
