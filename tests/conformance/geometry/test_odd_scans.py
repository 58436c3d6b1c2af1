"""Odd scans land on their own grid with the box found at its place, or say clearly why not."""

from types import SimpleNamespace

import numpy as np
import pytest
from odd_scans import odd_scan

from lamina.folders.model import Model
from lamina.geometry import check_same_grid, corner_distance
from lamina.io import read_labels
from lamina.workflows import predict as workflow


def pytest_generate_tests(metafunc):
    metafunc.parametrize("number", range(metafunc.config.getoption("odd_scans")))


@pytest.mark.filterwarnings("error")
def test_an_odd_scan_is_segmented_where_it_lies_or_its_fault_is_named(
    number, tmp_path, monkeypatch
):
    odd = odd_scan(number, tmp_path)
    model = Model(SimpleNamespace(plan=odd.predictor.plan, training={}), odd.predictor)
    monkeypatch.setattr(workflow, "load", lambda *_, **__: model)
    (tmp_path / "model.lamina").touch()
    out = tmp_path / "out"
    (outcome,) = workflow.predict(tmp_path / "model.lamina", odd.path, out=out).outcomes
    left = {path.name for path in out.iterdir()}
    if odd.fault:
        assert odd.fault in outcome.error
        assert outcome.error.startswith(str(odd.path))
        assert outcome.error.endswith(".")
        assert left == {"prediction.json"}
        return
    assert outcome.error == ""
    assert left == {"prediction.json", outcome.segmentation}
    found = read_labels(out / outcome.segmentation)
    assert found.unit == odd.volume.unit
    grids = found.affine, found.spatial_shape, odd.volume.affine, odd.volume.spatial_shape
    check_same_grid(*grids, "odd scan")
    assert corner_distance(*grids) < 1e-3
    (value,) = odd.predictor.plan.labels.values.values()
    assert set(np.unique(found.array)) <= {0, value}
    marked = found.array[0] == value
    assert marked[odd.surely].all()
    assert not marked[odd.never].any()
