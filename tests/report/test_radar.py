"""Radar charts are readable without colours and start where values are."""

import pytest

from lamina.report.radar import radar_chart

AXES = ("Dice", "IoU", "MCC", "Recall")


def test_lines_are_closed_and_told_apart_by_dashes():
    lines = {"a": (90, 80, 85, 95), "b": (70, 60, 65, 72)}
    chart = radar_chart("Liver", "Table 7", AXES, lines)
    (axes,) = chart.figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == list(AXES)
    assert len({line.get_linestyle() for line in axes.get_lines()}) == 2
    for line, values in zip(axes.get_lines(), lines.values(), strict=True):
        assert tuple(line.get_ydata()) == (*values, values[0])
    assert "<svg" in chart.svg


@pytest.mark.parametrize(("smallest", "low"), [(87, 80), (61, 50), (3, 0), (99.5, 90)])
def test_the_scale_begins_below_the_smallest_value(smallest, low):
    chart = radar_chart("Liver", "", AXES, {"a": (smallest, 99.6, 99.7, 100)})
    assert chart.figure.axes[0].get_ylim() == (low, 100)
