"""Amounts as people type them."""

import pytest
import typer

from lamina.cli.units import duration, folds, memory, millimetres, names, numbers, pause, spoken


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8G", 8e9),
        ("8GB", 8e9),
        ("8g", 8e9),
        ("1.5 T", 1.5e12),
        ("512M", 512e6),
        ("64k", 64e3),
        ("1000000", 1e6),
    ],
)
def test_memory(text, expected):
    assert memory(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("20m", 1200), ("20M", 1200), ("90s", 90), ("1.5h", 5400), ("2d", 172800), (" 45 ", 45)],
)
def test_duration(text, expected):
    assert duration(text) == expected


@pytest.mark.parametrize(("parse", "example"), [(memory, "8G or 512M"), (duration, "20m or 1.5h")])
@pytest.mark.parametrize(
    "text", ["", "0", "0G", "-1", "G", "1e3", "nan", "inf", "8X", "8GG", "1:30", "20 min", "1,5h"]
)
def test_anything_else_is_refused_with_an_example(parse, example, text):
    with pytest.raises(typer.BadParameter, match=example):
        parse(text)


@pytest.mark.parametrize(("parse", "text"), [(memory, "5h"), (memory, "5s"), (duration, "5G")])
def test_memory_is_no_time(parse, text):
    with pytest.raises(typer.BadParameter):
        parse(text)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (95, "1 min 35 s"),
        (600, "10 min"),
        (1234, "20 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (4800, "1 h 20 min"),
        (100_000, "27 h 46 min"),
    ],
)
def test_spoken(seconds, expected):
    assert spoken(seconds) == expected


def test_a_pause_is_a_time_or_none():
    assert [pause(text) for text in ("0", " 0 ", "90", "1m")] == [0, 0, 90, 60]
    for wrong in ("-1", "0m", "", "soon"):
        with pytest.raises(typer.BadParameter):
            pause(wrong)


def test_names_are_words_with_commas_between():
    assert names("A, b c ,D") == ["A", "b c", "D"]
    for wrong in ("", "A,", " ,A"):
        with pytest.raises(typer.BadParameter, match="must be names"):
            names(wrong)


def test_folds_are_whole_numbers_with_commas_between_or_all():
    assert numbers("0, 12") == folds("0, 12") == [0, 12]
    assert folds("all") is None
    for wrong in ("", "0,", "-1", "1.5", "²", "all,0"):
        with pytest.raises(typer.BadParameter, match="must be whole numbers"):
            folds(wrong)


def test_sizes_of_voxels_are_numbers_with_commas_between():
    assert millimetres("1, 1,2.5") == [1.0, 1.0, 2.5]
    for wrong in ("", "1,", "1x1", "-1,1", "nan,1"):
        with pytest.raises(typer.BadParameter, match="must be sizes in mm"):
            millimetres(wrong)
