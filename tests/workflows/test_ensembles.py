"""What a model that was made of several tells of itself, and where it is tested."""

from lamina.evaluation.scores import Score, Scores
from lamina.evaluation.statistics.intervals import FEW_TOLD
from lamina.evaluation.statistics.means import intervals_of
from lamina.files import write_json
from lamina.labels import LabelSet
from lamina.workflows.cross_validation.ensembles import metrics_of
from lamina.workflows.own_scans import device_of


def test_a_device_that_is_not_here_any_more_is_not_asked_for():
    found = [device_of({"device": name}) for name in ("cpu", "cuda:7", None)]
    assert found == ["cpu", None, None]
    assert device_of({}) is None


def test_scans_of_one_patient_are_no_independent_evidence_in_a_models_intervals(tmp_path):
    patients = {"a": "p", "b": "p", "c": "p", "d": "q", "e": "q", "f": "r", "g": "s", "h": "t"}
    cases = [
        {"case_id": case, "segmentation": None, "case": {"case_id": case, "group": group}}
        for case, group in patients.items()
    ]
    write_json(tmp_path / "prediction.json", {"cases": cases})
    rows = tuple(
        Score(case=case, label="large", metric="dice", value=value, rule="")
        for case, value in zip(patients, (0.9, 0.8, 0.9, 0.2, 0.3, 0.6, 0.7, 0.4), strict=True)
    )
    labels = LabelSet(values={"large": 1})
    scores = Scores(labels=labels, metrics=("dice",), rows=rows, predictions=str(tmp_path))
    expected, apart = (
        intervals_of(scores, known, ("dice",))["large"]["dice"] for known in (patients, {})
    )
    told = metrics_of(scores, "these")
    found = told["intervals"]["dice"]["large"]
    assert found == {
        "n": 5,
        "mean": expected.mean,
        "low": expected.low,
        "high": expected.high,
    }
    assert found["mean"] != told["dice"]["large"] == apart.mean
    assert found["low"] != apart.low
    assert told["caution"] == FEW_TOLD


def test_a_model_has_no_interval_from_four_patients_and_says_so(tmp_path):
    rows = tuple(
        Score(case=case, label="large", metric="dice", value=value, rule="")
        for case, value in {"a": 0.9, "b": 0.8, "c": 0.2, "d": 0.4}.items()
    )
    scores = Scores(
        labels=LabelSet(values={"large": 1}),
        metrics=("dice",),
        rows=rows,
        predictions=str(tmp_path),
    )
    told = metrics_of(scores, "these")
    assert "intervals" not in told
    assert told["caution"] == FEW_TOLD
