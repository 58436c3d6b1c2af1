"""Label sets: file values to class indices and back, whatever the values are."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import LabelError
from lamina.labels import IGNORE_INDEX, LabelSet

INT64 = st.integers(-(2**63), 2**63 - 1)
TUMOUR = LabelSet(
    values={"necrosis": 1, "oedema": 2, "enhancing": 4},
    regions={"whole": ("necrosis", "oedema", "enhancing"), "core": ("necrosis", "enhancing")},
    ignore=9,
)


@st.composite
def label_sets(draw) -> LabelSet:
    values = draw(st.lists(INT64, min_size=3, max_size=9, unique=True))
    names = [f"structure {i}" for i in range(len(values) - 2)]
    ignored = draw(st.booleans())
    regions = {"two": tuple(names[:2])} if draw(st.booleans()) else {}
    return LabelSet(
        values=dict(zip(names, values[2:], strict=True)),
        background=values[0],
        regions=regions,
        ignore=values[1] if ignored else None,
    )


def _file_values(labels: LabelSet) -> list[int]:
    ignored = [] if labels.ignore is None else [labels.ignore]
    return [labels.background, *labels.values.values(), *ignored]


@given(label_sets(), st.data())
def test_decode_undoes_encode_for_any_values(labels, data):
    values = _file_values(labels)
    picks = data.draw(st.lists(st.sampled_from(values), min_size=6, max_size=6))
    array = np.array(picks, dtype=np.int64).reshape(1, 2, 3)
    indices = labels.encode(array, "scan.nii.gz")
    assert indices.dtype == np.uint8
    assert indices.shape == array.shape
    decoded = labels.decode(indices)
    np.testing.assert_array_equal(decoded, array)
    assert np.issubdtype(decoded.dtype, np.integer)
    assert np.iinfo(decoded.dtype).min <= min(values) <= max(values) <= np.iinfo(decoded.dtype).max


@given(label_sets())
def test_plain_data_round_trip_keeps_everything_and_the_order(labels):
    again = LabelSet.from_dict(json.loads(json.dumps(labels.as_dict())))
    assert again == labels
    assert again.foreground == labels.foreground


def test_class_indices_follow_the_order_of_the_names():
    array = np.array([[0, 1, 2, 4, 9]], dtype=np.int16)
    assert TUMOUR.encode(array, "a").tolist() == [[0, 1, 2, 3, IGNORE_INDEX]]
    assert TUMOUR.num_classes == 4
    assert TUMOUR.foreground == ("necrosis", "oedema", "enhancing")


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ((0, 1), "uint8"),
        ((0, 300), "uint16"),
        ((-1, 0), "int8"),
        ((-1, 200), "int16"),
        ((-1, 2**40), "int64"),
        ((0, 2**40), "uint64"),
    ],
)
def test_decoded_maps_use_the_smallest_integers_that_hold_all_values(values, dtype):
    labels = LabelSet(background=values[0], values={"a": values[1]})
    assert labels.decode(np.array([0, 0], dtype=np.uint8)).dtype == dtype


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64", "bool"])
def test_encode_takes_any_dtype_that_holds_whole_numbers(dtype):
    array = np.array([0, 1, 1], dtype=dtype)
    assert LabelSet(values={"a": 1}).encode(array, "a").tolist() == [0, 1, 1]


@pytest.mark.parametrize("stranger", [7, -3, 1.5, float("nan")])
def test_undeclared_values_are_named_with_their_file(stranger):
    array = np.array([0.0, 1.0, stranger])
    with pytest.raises(LabelError) as caught:
        TUMOUR.encode(array, "case_7.nii.gz")
    assert "case_7.nii.gz" in str(caught.value)
    assert str(stranger) in str(caught.value)
    assert "[0, 1, 2, 4, 9]" in str(caught.value)


def test_masks_give_structures_then_regions_and_leave_the_ignored_out():
    masks = TUMOUR.masks(TUMOUR.encode(np.array([0, 1, 2, 4, 9]), "a"))
    assert list(masks) == ["necrosis", "oedema", "enhancing", "whole", "core"]
    assert masks["oedema"].tolist() == [False, False, True, False, False]
    assert masks["whole"].tolist() == [False, True, True, True, False]
    assert masks["core"].tolist() == [False, True, False, True, False]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"values": {}}, "no foreground"),
        ({"values": {"a": 1, "b": 1}}, "'b' and 'a' share the value 1"),
        ({"values": {"a": 0}}, "'a' and 'background' share the value 0"),
        ({"values": {"a": 1}, "ignore": 0}, "'ignore' and 'background' share the value 0"),
        ({"values": {"a": 1}, "ignore": 1}, "'a' and 'ignore' share the value 1"),
        ({"values": {"a": 2**63}}, "beyond 64 bits"),
        ({"values": {"a": 1}, "regions": {"r": ("b",)}}, r"region 'r' names \['b'\]"),
        ({"values": {"a": 1}, "regions": {"r": ()}}, "region 'r' is empty"),
        ({"values": {"a": 1}, "regions": {"a": ("a",)}}, "region 'a' is empty or has"),
        ({"values": {str(i): i for i in range(1, 256)}}, "at most 254"),
    ],
)
def test_contradictions_are_refused(fields, message):
    with pytest.raises(LabelError, match=message):
        LabelSet(**fields)


def test_254_structures_fit_beside_the_ignore_index():
    labels = LabelSet(values={str(i): i for i in range(1, 255)}, ignore=1000)
    array = np.array([254, 1000, 0])
    assert labels.encode(array, "a").tolist() == [254, IGNORE_INDEX, 0]
    assert labels.decode(labels.encode(array, "a")).tolist() == [254, 1000, 0]


@pytest.mark.parametrize(
    "data",
    [{}, {"values": 3}, {"values": {"a": 1.7}}, {"values": {"a": "1"}}, [], {"values": None}],
)
def test_data_that_is_no_label_set_is_refused(data):
    with pytest.raises(LabelError, match="labels: cannot be read"):
        LabelSet.from_dict(data)


BRATS = {
    "values": {"necrosis": 1, "oedema": 2, "enhancing": 4},
    "regions": {
        "core": ("necrosis", "enhancing"),
        "whole": ("necrosis", "oedema", "enhancing"),
        "hot": ("enhancing",),
    },
}


def test_regions_drawn_over_each_other_give_the_labels_they_were_made_of():
    labels = LabelSet(**BRATS)
    indices = np.array([0, 1, 2, 3, 3, 0])
    regions = [labels.masks(indices)[name] for name in labels.regions]
    drawn = np.zeros_like(indices)
    for position, index in labels.region_drawing:
        drawn[regions[position]] = index
    np.testing.assert_array_equal(drawn, indices)


def test_regions_that_leave_no_structure_of_their_own_cannot_be_drawn():
    twins = {"core": ("necrosis",), "centre": ("necrosis",)}
    labels = LabelSet(values={"necrosis": 1}, regions=twins)
    with pytest.raises(LabelError, match="'centre' has 0 structures that no smaller region covers"):
        _ = labels.region_drawing


def square(*corner):
    mask = np.zeros((4, 5), bool)
    mask[tuple(slice(low, high) for low, high in corner)] = True
    return mask


def test_named_masks_become_classes_and_undeclared_ones_background():
    labels = LabelSet(values={"b": 7, "a": 3})
    masks = [("a", square((0, 2), (0, 2))), ("c", square((0, 4), (0, 5)))]
    drawn = labels.draw(
        [*masks, ("b", square((2, 4), (0, 1))), ("b", square((2, 3), (4, 5)))], (4, 5), "x"
    )
    np.testing.assert_array_equal(
        drawn, [[2, 2, 0, 0, 0], [2, 2, 0, 0, 0], [1, 0, 0, 0, 1], [1, 0, 0, 0, 0]]
    )
    assert drawn.dtype == np.uint8
    assert not labels.draw([], (4, 5), "x").any()


def test_masks_that_overlap_are_refused_with_their_names():
    labels = LabelSet(values={"a": 1, "b": 2, "c": 3})
    masks = [("a", square((0, 2), (0, 2))), ("c", square((1, 4), (1, 5)))]
    with pytest.raises(LabelError, match="x: 'a' and 'c' overlap in 1 voxels"):
        labels.draw(masks, (4, 5), "x")


def test_regions_drawn_as_masks_give_the_labels_they_were_made_of():
    labels = LabelSet(**BRATS)
    indices = np.array([[0, 1, 2, 3, 3, 0]])
    regions = [(name, labels.masks(indices)[name]) for name in labels.regions]
    for masks in (regions, regions[::-1]):
        np.testing.assert_array_equal(labels.draw(masks, indices.shape, "x"), indices)
    structures = [(name, labels.masks(indices)[name]) for name in labels.values]
    np.testing.assert_array_equal(labels.draw(structures, indices.shape, "x"), indices)
    beside = [*regions, ("hot", indices == 0)]
    with pytest.raises(LabelError, match="'hot' lies outside the regions around it in 2 voxels"):
        labels.draw(beside, indices.shape, "x")


def test_regions_may_overlap_in_part():
    labels = LabelSet(
        values={"left": 1, "right": 2, "both": 3},
        regions={"A": ("left", "both"), "B": ("right", "both")},
    )
    masks = [("A", np.array([1, 1, 0, 0], bool)), ("B", np.array([0, 1, 1, 0], bool))]
    assert labels.draw(masks, (4,), "x").tolist() == [1, 3, 2, 0]
    twins = LabelSet(values={"a": 1, "b": 2}, regions={"A": ("a", "b")})
    with pytest.raises(LabelError, match="'A' could be 2 structures in 2 voxels"):
        twins.draw(masks[:1], (4,), "x")
