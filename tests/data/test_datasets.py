"""What is written of public datasets agrees with the papers and with itself."""

import re
from pathlib import Path

import pytest

import lamina
from lamina.config import load_yaml
from lamina.data.datasets import (
    PAPERS,
    CaseNames,
    expand,
    list_descriptions,
    load_description,
    load_descriptions,
)
from lamina.errors import UnknownNameError

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


def assert_each_once(entries):
    assert len(set(entries)) == len(entries)


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
    assert description.spatial_dims in (2, 3)
    assert description.label_set.foreground == tuple(description.labels)
    if description.names:
        cases = description.names.numbers
        assert re.compile(description.names.pattern).groups == bool(cases)
        assert_each_once(expand(cases))
        assert all(expand((entry,)) for entry in cases), "a range rises"
        assert all(map(description.names.fits, description.names.examples))


@pytest.mark.parametrize("name", NAMES)
def test_a_protocol_is_whole(name):
    description = load_description(name)
    for paper, protocol in description.protocols.items():
        assert protocol.split or protocol.note, f"{paper}: the note must say why it has no split"
        assert not protocol.trained_on or protocol.trained_on in NAMES
        re.compile(protocol.only)
        united = [structure for members in protocol.labels.values() for structure in members]
        assert_each_once(united)
        assert set(united) <= set(description.labels)
        if protocol.region_based:
            assert description.regions
            assert not protocol.labels


@pytest.mark.parametrize("name", NAMES)
def test_a_split_lists_each_case_once_and_as_many_as_the_paper_prints(name):
    description = load_description(name)
    for paper, protocol in description.protocols.items():
        if protocol.split is None:
            continue
        entries = (*protocol.split.train, *protocol.split.val, *protocol.split.test)
        assert entries, paper
        assert all(expand((entry,)) for entry in entries), "a range rises"
        assert_each_once(expand(entries))
        assert set(expand(entries)) <= set(expand(description.names.numbers))
        counts = {side: len(found) for side, found in protocol.split.sides().items()}
        if protocol.num_val is None:
            counts["train"] += counts.pop("val")
        for side, count in counts.items():
            assert count in (0, getattr(protocol, f"num_{side}")), (paper, side)


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
    assert load_description("lits").as_dict()["protocols"]["mpunet"]["split"]["test"][-1] == 46


def test_datasets_are_listed_by_name():
    assert [found.name for found in load_descriptions(["lits", "acdc"])] == ["lits", "acdc"]
    assert [found.name for found in load_descriptions()] == list(NAMES)


def test_an_unknown_dataset_is_refused_with_near_names():
    with pytest.raises(UnknownNameError, match="Did you mean lits"):
        load_descriptions(["lit"])
    with pytest.raises(UnknownNameError, match="Did you mean brats20"):
        load_description("brats2020")
    with pytest.raises(UnknownNameError, match="Unknown dataset '../datasets/acdc'"):
        load_description("../datasets/acdc")


def test_names_tell_the_numbers_of_cases():
    names = CaseNames(pattern=r"volume-(\d+)", examples=("volume-7",), numbers=("0-9",))
    assert (names.number("volume-12"), names.number("case-12")) == (12, None)
    assert names.fits("volume-3")
    assert not names.fits("my-volume-3")
