import json
from dataclasses import replace

import pytest

from lamina.bundle import load_bundle, save_bundle
from lamina.errors import ConfigError, UnknownNameError
from lamina.models import configure
from lamina.models.complexity import complexity, products
from lamina.pretrained import shipped
from lamina.report.benchmarks import page
from lamina.workflows.bench import BenchSettings, bench
from lamina.workflows.bench.peaks import roofline_s
from lamina.workflows.bench.processes import Failed, Measuring
from lamina.workflows.bench.subjects import SUBJECTS, subject, untrained

SMALL = {"size": (32, 32), "threads": (1,), "repeats": 2}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A small network, plain and fast, and the folder of its record."""
    out = tmp_path_factory.mktemp("bench")
    return bench(["tinyunet"], BenchSettings(forms=("fast",), **SMALL), out=out), out


def test_every_form_has_a_row_beside_the_plain_one(measured):
    rows = measured[0]["networks"]["tinyunet"]["threads"]["1"]["rows"]
    assert list(rows) == ["plain", "fast"]
    for row in rows.values():
        assert row["warm_s"] >= row["fastest_s"] > 0
        assert row["peak_mb"] > 50
        assert row["roofline"] > 0
    assert rows["plain"]["faster"] == 1
    assert rows["plain"]["difference"] == 0
    assert 0 < rows["fast"]["difference"] < 1e-4


def test_record_and_page_are_left_in_the_folder(measured):
    record, out = measured
    kept = json.loads((out / "benchmarks.json").read_text("utf-8"))
    assert kept == record
    shown = (out / "benchmarks.md").read_text("utf-8")
    assert shown == page(kept)
    assert "| 1 | torch, fast |" in shown
    assert record["machine"]["processor"] in shown


def test_a_row_that_cannot_be_measured_says_why(monkeypatch, tmp_path):
    missing = {"onnx": {"error": "onnxruntime is not installed"}}
    monkeypatch.setattr("lamina.workflows.bench.measure._exports", lambda *_: missing)
    record = bench(["tinyunet"], BenchSettings(forms=("onnx",), **SMALL), out=tmp_path)
    rows = record["networks"]["tinyunet"]["threads"]["1"]["rows"]
    assert rows["onnx"]["error"] == "onnxruntime is not installed"
    assert rows["plain"]["warm_s"] > 0
    assert "| 1 | ONNX Runtime | onnxruntime is not installed |" in page(record)


def test_other_networks_of_a_record_stay_and_other_machines_are_refused(measured, monkeypatch):
    from lamina.workflows.bench import record as records

    _, out = measured
    assert "tinyunet" in records.read_benchmarks(out)["networks"]
    monkeypatch.setattr(records, "processor", lambda: "another")
    with pytest.raises(ConfigError, match="another machine"):
        records.read_benchmarks(out)


def test_a_record_tells_how_its_process_was_scheduled(measured, monkeypatch):
    from lamina.workflows.bench import record as records

    record, out = measured

    def shown(policy):
        return page(record | {"machine": record["machine"] | {"scheduling": policy}})

    assert "SCHED_" not in shown(None) + shown("SCHED_OTHER")
    assert "scheduled by SCHED_RR, ahead of all other work" in shown("SCHED_RR")
    monkeypatch.setattr(records, "_scheduling", lambda: "another")
    with pytest.raises(ConfigError, match="scheduling policy"):
        records.read_benchmarks(out)


def test_a_step_that_takes_too_long_is_given_up():
    with (
        Measuring("machine", threads=1, timeout_s=0.05) as process,
        pytest.raises(Failed, match="took more than"),
    ):
        process.step()


def test_what_fails_in_a_process_is_told(tmp_path):
    job = {"model": tmp_path / "none.lamina", "target": "onnx", "folder": tmp_path}
    with (
        Measuring("export", threads=1, timeout_s=100, **job) as process,
        pytest.raises(Failed, match=r"none\.lamina"),
    ):
        process.step()


def test_a_wrong_size_form_or_name_is_refused():
    with pytest.raises(ConfigError, match="takes windows of 2 axes"):
        bench(["tinyunet"], BenchSettings(size=(32, 32, 32)))
    with pytest.raises(ConfigError, match="tensorrt"):
        BenchSettings(forms=("tensorrt",))
    with pytest.raises(UnknownNameError, match="tinyunet"):
        bench(["tinyunett"])


def test_a_network_goes_before_what_is_called_like_it_here(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tinyunet").mkdir()
    save_bundle(untrained("tinyunet", 2, 3, (16, 16)), tmp_path / "tinyunet" / "model.lamina")
    network = subject("tinyunet", (32, 32), tmp_path / "network")
    assert len(network.bundle.plan.channels) == 1
    assert "./tinyunet would be what lies here" in caplog.text
    assert len(subject("./tinyunet", None, tmp_path / "model").bundle.plan.channels) == 2


def test_a_model_that_ships_is_measured_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, file = next(iter(shipped().items()))
    assert subject(name, None, tmp_path / "copy").bundle.plan == load_bundle(file).plan


@pytest.mark.parametrize("name", SUBJECTS)
def test_products_are_those_that_are_counted(name):
    in_channels, num_classes, size = SUBJECTS[name]
    config = configure(name, in_channels=in_channels, num_classes=num_classes)
    found, cost = products(config, size), complexity(config, size)
    assert sum(macs for macs, _ in found) == cost.macs
    assert all(values > 0 for _, values in found)


def test_the_roofline_is_arithmetic_or_memory_whichever_takes_longer():
    operators = [(10**9, 10), (10, 10**9)]
    found = roofline_s(operators, gflop_s=2.0, memory_gb_s=4.0, value_bytes=4)
    assert found == pytest.approx(1 + 1)


def test_fresh_weights_are_the_same_every_time():
    first, second = (untrained("tinyunet", 1, 2, (32, 32)).weights for _ in range(2))
    assert all(bool((first[key] == second[key]).all()) for key in first)


def test_a_whole_scan_is_split_into_its_parts(tmp_path):
    from lamina.workflows.bench.scan import PARTS, as_the_field_does, make_scan, segmented

    model, image = tmp_path / "model.lamina", tmp_path / "scan.nii.gz"
    bundle = untrained("lightmedseg", 1, 4, (32, 32, 32))
    save_bundle(replace(bundle, plan=replace(bundle.plan, target_spacing=(12.0,) * 3)), model)
    make_scan(image, (48, 48, 40))
    ours = segmented(model, image, tmp_path / "ours", bfloat16=False)
    theirs = as_the_field_does(model, image, tmp_path / "theirs")
    for row in (ours, theirs):
        assert all(row[part] > 0 for part in PARTS)
        assert sum(row[part] for part in PARTS) <= row["seconds"]
    assert [p.name for p in (tmp_path / "theirs").iterdir()] == ["scan.nii.gz"]
    assert (tmp_path / "ours" / "scan.nii.gz").is_file()
