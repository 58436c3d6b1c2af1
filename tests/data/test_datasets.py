"""What is written of public datasets agrees with the papers and with itself."""

from pathlib import Path

import pytest
import yaml

import lamina
from lamina.config import load_yaml, resolve
from lamina.data import datasets
from lamina.data.datasets import (
    PAPERS,
    CaseNames,
    DatasetDescription,
    Protocol,
    Split,
    expand,
    list_descriptions,
    load_description,
)
from lamina.errors import ConfigError, UnknownNameError

NAMES = [
    "acdc",
    "brats2021",
    "brats2023",
    "btcv",
    "bus",
    "busi",
    "cvc300",
    "isic2018",
    "kits23",
    "kvasir_seg",
    "lits",
    "msd_task01",
    "ph2",
    "synapse",
    "tnscui",
    "tucc",
]
NNFORMER_TEST = """
    11 12 18 20 21 28 29 32 34 36 41 47 49 53 56 57 69 71 89 90 92 95 103 105 106 107 109 118 145
    147 156 161 172 176 181 194 196 198 204 205 209 220 221 227 234 235 245 250 256 257 260 269 270
    271 281 282 287 289 291 292 310 314 323 327 330 333 337 346 350 352 361 382 397
"""
NNFORMER_OTHER = """
    58 59 76 77 99 113 114 124 139 151 152 157 190 240 242 295 305 325 331 362 389 425 432 450
"""
LAYOUTS = {"msd", "patients", "pictures", "nnunet", "folders", None}


@pytest.fixture
def described(tmp_path, monkeypatch):
    """Write a description, valid but for the changes, where descriptions are looked for."""
    monkeypatch.setattr(datasets, "__file__", str(tmp_path / "__init__.py"))

    def write(**changes):
        fields = {
            "name": "made_up",
            "title": "Made up",
            "task": "Nothing.",
            "modality": "CT",
            "spatial_dims": 3,
            "channels": ["CT"],
            "labels": {"liver": 1, "tumour": 2},
            "licence": "none",
            "size": {"cases": 4},
            "where": "nowhere",
            "citation": "none",
            "layout": None,
            "download": "none",
            "names": {"pattern": r"scan(\d)", "examples": ["scan1"], "numbers": ["1-4"]},
            "protocols": {},
        }
        (tmp_path / "made_up.yaml").write_text(yaml.safe_dump(fields | changes))

    return write


def numbers(name, paper):
    return load_description(name).protocols[paper].split.sides()


def test_these_datasets_are_described():
    assert list(list_descriptions()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_description_is_whole(name):
    description = load_description(name)
    assert description.name == name
    assert description.layout in LAYOUTS
    assert description.where.startswith("http")
    assert description.protocols
    assert set(description.protocols) <= set(PAPERS)
    for text in ("title", "task", "modality", "licence", "citation", "download"):
        assert getattr(description, text), text
    for protocol in description.protocols.values():
        assert not protocol.trained_on or protocol.trained_on in NAMES


def test_every_paper_has_the_datasets_of_its_tables():
    used = {paper: set() for paper in PAPERS}
    for name in NAMES:
        for paper in load_description(name).protocols:
            used[paper].add(name)
    pictures = {"busi", "tnscui", "isic2018", "kvasir_seg", "bus", "tucc", "ph2", "cvc300"}
    assert used == {
        "dainet": {"synapse", "acdc"},
        "glims": {"brats2021", "brats2023", "btcv"},
        "lgmsnet": pictures | {"btcv", "kits23"},
        "lightmedseg": {"msd_task01", "acdc"},
        "mpunet": {"lits"},
    }


@pytest.mark.parametrize(
    ("name", "paper", "train", "val", "test"),
    [
        ("msd_task01", "lightmedseg", 411, None, 73),
        ("acdc", "lightmedseg", 70, 10, 20),
        ("acdc", "dainet", 70, 10, 20),
        ("synapse", "dainet", 18, None, 12),
        ("lits", "mpunet", 88, 22, 20),
        ("busi", "lgmsnet", 452, 195, None),
        ("isic2018", "lgmsnet", 1815, 779, None),
        ("tnscui", "lgmsnet", 2550, 1094, None),
        ("bus", "lgmsnet", None, None, 562),
        ("ph2", "lgmsnet", None, None, 200),
        ("cvc300", "lgmsnet", None, None, 912),
    ],
)
def test_counts_are_those_of_the_papers(name, paper, train, val, test):
    protocol = load_description(name).protocols[paper]
    assert (protocol.num_train, protocol.num_val, protocol.num_test) == (train, val, test)


def test_pictures_that_are_split_in_two_are_all_of_the_dataset():
    for name, cases in [("busi", 437 + 210), ("isic2018", 2594), ("tnscui", 3644)]:
        protocol = load_description(name).protocols["lgmsnet"]
        assert protocol.num_train + protocol.num_val == cases


def test_brats_of_the_decathlon_is_split_as_nnformer_does():
    sides = numbers("msd_task01", "lightmedseg")
    assert [len(sides[side]) for side in ("train", "val", "test")] == [387, 24, 73]
    assert sorted(n for side in sides.values() for n in side) == list(range(1, 485))
    assert sides["test"] == tuple(map(int, NNFORMER_TEST.split()))
    assert sides["val"] == tuple(map(int, NNFORMER_OTHER.split()))


def test_acdc_is_split_by_patient():
    for paper in ("lightmedseg", "dainet"):
        sides = numbers("acdc", paper)
        assert sides["test"] == (
            *(2, 3, 8, 9, 12, 14, 17, 24, 42, 48, 49, 53, 55, 64, 67, 79, 81, 88, 92, 95),
        )
        assert sides["val"] == (89, 90, 91, 93, 94, 96, 97, 98, 99, 100)
        assert sorted(n for side in sides.values() for n in side) == list(range(1, 101))


def test_synapse_is_split_as_transunet_does():
    sides = numbers("synapse", "dainet")
    assert sides["test"] == (1, 2, 3, 4, 8, 22, 25, 29, 32, 35, 36, 38)
    assert sorted(sides["train"] + sides["val"]) == [
        *(5, 6, 7, 9, 10, 21, 23, 24, 26, 27, 28, 30, 31, 33, 34, 37, 39, 40),
    ]
    assert sides["val"] == (5, 21, 33)


def test_synapse_has_the_eight_organs_in_the_order_of_the_tables():
    labels = load_description("synapse").protocols["dainet"].labels
    assert list(labels) == [
        *("aorta", "gallbladder", "left kidney", "right kidney"),
        *("liver", "pancreas", "spleen", "stomach"),
    ]


def test_lits_keeps_twenty_volumes_for_the_end_and_counts_tumour_as_liver():
    assert numbers("lits", "mpunet") == {"train": (), "val": (), "test": tuple(range(27, 47))}
    assert load_description("lits").protocols["mpunet"].labels == {"liver": ("liver", "tumour")}
    assert load_description("lits").size.cases == 131


def test_the_regions_of_brats_unite_what_they_should():
    for name, regions in {
        "brats2021": {"whole tumour": [1, 2, 4], "tumour core": [1, 4], "enhancing core": [4]},
        "brats2023": {"whole tumour": [1, 2, 3], "tumour core": [1, 3], "enhancing core": [3]},
        "msd_task01": {"whole tumour": [1, 2, 3], "tumour core": [2, 3], "enhancing core": [3]},
    }.items():
        labels = load_description(name).label_set
        found = {
            region: [labels.values[member] for member in members]
            for region, members in labels.regions.items()
        }
        assert found == regions


@pytest.mark.parametrize(("name", "recipe"), [("brats2021", "glims_brats"), ("btcv", "glims_btcv")])
def test_labels_and_channels_are_those_of_the_published_checkpoints(name, recipe):
    checkpoints = Path(lamina.__file__).parent / "recipes" / "checkpoints"
    plan = load_yaml(checkpoints / f"{recipe}.yaml")["plan"]
    description = load_description(name)
    assert list(description.channels) == plan["channels"]
    assert dict(description.labels) == plan["labels"]["values"]
    regions = {region: list(members) for region, members in description.regions.items()}
    assert regions == plan["labels"].get("regions", {})


def test_ranges_are_spelt_out():
    assert expand((3, "27-29", 5)) == (3, 27, 28, 29, 5)
    for wrong in ("29-27", "a", "1-", "-1"):
        with pytest.raises(ConfigError, match="must be a number or a range"):
            expand((wrong,))
    assert load_description("lits").as_dict()["protocols"]["mpunet"]["split"]["test"][-1] == 46


def test_an_unknown_dataset_is_refused_with_near_names():
    with pytest.raises(UnknownNameError, match="Did you mean brats20"):
        load_description("brats2020")
    with pytest.raises(UnknownNameError, match="Unknown dataset '../datasets/acdc'"):
        load_description("../datasets/acdc")


def test_all_faults_of_a_file_are_listed(described):
    described(spatial_dims="three", colour="red", size={"cases": 4, "pounds": 3}, protocols=[])
    with pytest.raises(ConfigError) as error:
        load_description("made_up")
    for fault in ("4 settings are wrong", "spatial_dims", "colour", "size.pounds", "protocols"):
        assert fault in str(error.value)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"spatial_dims": 4}, "spatial_dims = 4: must be 2 or 3"),
        ({"labels": {"liver": 1, "tumour": 1}}, "share the value 1"),
        ({"regions": {"all": ["liver", "cyst"]}}, r"names \['cyst'\]"),
        ({"protocols": {"unet": {"note": "x"}}}, "protocols.unet: unknown"),
        ({"protocols": {"glims": {}}}, "the note must say why"),
        ({"protocols": {"glims": {"note": "x", "only": "("}}}, "not a regular expression"),
        ({"protocols": {"glims": {"split": {}}}}, "lists no cases"),
        ({"protocols": {"glims": {"num_train": 1, "split": {"train": [9]}}}}, r"no cases \[9\]"),
        (
            {"protocols": {"glims": {"note": "x", "labels": {"all": ["liver", "cyst"]}}}},
            r"no structures are called \['cyst'\]",
        ),
        (
            {"protocols": {"glims": {"note": "x", "labels": {"a": ["liver"], "b": ["liver"]}}}},
            r"\['liver'\] are listed twice",
        ),
    ],
)
def test_contradictions_are_refused(described, changes, fault):
    described()
    assert load_description("made_up").size.cases == 4
    described(**changes)
    with pytest.raises(ConfigError, match=fault):
        load_description("made_up")


def test_a_case_is_on_one_side_only():
    with pytest.raises(ConfigError, match=r"\[3\] are listed twice"):
        Split(train=("1-3",), test=(3, 4))
    with pytest.raises(ConfigError, match=r"\[2\] are listed twice"):
        Split(train=(1, 2, 2))


def test_listed_cases_are_as_many_as_printed():
    with pytest.raises(ConfigError, match="2 cases in test, the paper prints 3"):
        Protocol(num_train=2, num_test=3, split=Split(train=(1, 2), test=(3, 4)))
    with pytest.raises(ConfigError, match="3 cases in train, the paper prints 2"):
        Protocol(num_train=2, split=Split(train=(1, 2), val=(3,)))
    assert Protocol(num_train=3, split=Split(train=(1, 2), val=(3,))).num_train == 3


def test_names_fit_their_examples_and_give_numbers():
    names = CaseNames(pattern=r"volume-(\d+)", examples=("volume-7",), numbers=("0-9",))
    assert (names.number("volume-12"), names.number("case-12")) == (12, None)
    assert names.fits("volume-3")
    assert not names.fits("my-volume-3")
    with pytest.raises(ConfigError, match="does not fit"):
        CaseNames(pattern="a", examples=("b",))
    with pytest.raises(ConfigError, match="needs one group"):
        CaseNames(pattern=r"volume-\d+", examples=("volume-7",), numbers=("0-9",))


def test_unknown_keys_are_named_with_the_nearest_known_one():
    plain = load_description("acdc").as_dict()
    plain["protocols"]["dainet"]["num_tests"] = 20
    with pytest.raises(ConfigError, match=r"num_tests: unknown; did you mean"):
        resolve(DatasetDescription, plain)
    del plain["protocols"]["dainet"]["num_tests"]
    assert resolve(DatasetDescription, plain).protocols["dainet"].num_test == 20
