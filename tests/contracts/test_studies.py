"""Every study builds its networks, prints figures that can be, and measures what exists."""

from functools import cache

import pytest
import torch

import lamina
from lamina.config import resolve
from lamina.data.datasets import load_description
from lamina.evaluation.metrics import METRICS
from lamina.evaluation.protocols import PROTOCOLS
from lamina.study.complexity import network_of
from lamina.study.schema import CHANNELS, COUNTED, SCALES, list_studies, read_study
from lamina.training.config import TrainConfig
from lamina.workflows.recipes import get_recipe
from lamina.workflows.study.plan import settings_of

STUDIES = {study.name: study for study in list_studies()}
WHOLE = [name for name in STUDIES if "-" not in name or name.endswith(("-busi", "-bus"))]
"""Parts of one table have the same rows: one of each is enough where rows are looked at."""

every_study = pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)


def test_every_table_with_figures_is_there():
    tables = {
        "glims": {"table1", "table2", "table3", "table4", "table5", "figure9", "figure10"},
        "lightmedseg": {"table1", "table2", "table3", "table4"},
        "lgmsnet": {
            *("table1", "table2", "table3", "table4", "table6", "figure1c", "figure7"),
        },
        "dainet": {"table1", "table2", "table3"},
        "mpunet": {"table5", "table6", "table7", "table8"},
    }
    found = {name.partition("-")[0] for name in STUDIES}
    assert found == {f"{paper}/{table}" for paper, names in tables.items() for table in names}
    assert all(read_study(name) == study for name, study in list(STUDIES.items())[::8])


@cache
def weights_of(config):
    with torch.device("meta"):
        return sum(weight.numel() for weight in config.build().parameters())


@pytest.mark.parametrize("name", WHOLE)
def test_networks_have_the_printed_weights_or_a_note_says_why_not(name):
    study = STUDIES[name]
    for key, row in study.runnable.items():
        count = weights_of(network_of(study, row))
        for column, printed in zip(study.columns, row.published, strict=bool(row.published)):
            if column.metric == "parameters" and printed is not None:
                measured = SCALES[column.unit] * count
                digits = len(f"{printed:f}".rstrip("0").partition(".")[2])
                assert row.note or round(measured, digits) == printed, (key, measured, printed)


@every_study
def test_figures_are_in_range(study):
    rows = [row.published for row in study.rows.values() if row.published]
    for row in [*rows, *study.cases.values()]:
        for column, value in zip(study.columns, row, strict=True):
            low = -100 if column.change else 0
            high = 100 if column.unit == "%" else float("inf")
            assert value is None or low <= value <= high, (column.title, value)


@every_study
def test_metrics_structures_and_recipes_are_known(study):
    theirs = {m.name for m in PROTOCOLS.get(study.protocol).metrics} if study.protocol else set()
    known = {*METRICS, *COUNTED, *theirs, CHANNELS, ""}
    assert {column.metric for column in study.columns} <= known
    scored = any(column.is_scored for column in study.columns)
    assert bool(study.dataset) == bool(study.recipe) == scored
    if not scored:
        return
    origin = get_recipe(study.recipe).origin
    assert (origin.paper, origin.dataset) == (study.paper, study.dataset)
    described = load_description(study.dataset)
    names = {*described.labels, *described.regions, *described.protocols[study.paper].labels}
    assert {name for column in study.columns for name in column.of} <= names
    if study.unseen:
        assert load_description(study.unseen).protocols[study.paper].trained_on == study.dataset


@pytest.mark.parametrize("name", WHOLE)
def test_settings_of_every_row_are_accepted(name):
    study = STUDIES[name]
    recipe = lamina.recipe(study.recipe) if study.recipe else {}
    for row in study.runnable.values():
        config = resolve(TrainConfig, settings_of(study, row, recipe, {}))
        assert config.model == row.model


@every_study
def test_changes_have_something_to_be_a_change_of(study):
    changes = any(column.change for column in study.columns)
    based = [row.base for row in study.rows.values() if row.base]
    assert bool(based) == changes
    assert all(study.rows[base].model for base in based)
    if study.drawn == "curve":
        assert all(row.place is not None and row.line for row in study.runnable.values())
