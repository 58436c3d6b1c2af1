"""Comparing methods by files of scores: what is compared, what is refused, what is left behind."""

import shutil

import numpy as np
import pytest

from lamina import __version__
from lamina.errors import ConfigError, DatasetError, FileError, LaminaError, UnknownNameError
from lamina.evaluation.scores import Score, Scores
from lamina.files import read_json, write_json
from lamina.folders.evaluation import CASES, read_evaluation
from lamina.io import write_volume
from lamina.labels import LabelSet
from lamina.volume import Volume
from lamina.workflows.compare import compare
from lamina.workflows.evaluate import evaluate

LABELS = LabelSet(values={"liver": 1, "tumour": 2}, regions={"all": ("liver", "tumour")})
RULES = {"missed": "prediction empty", "invented": "reference empty", "absent": "both empty"}


def write_scores(folder, table, labels=LABELS, metrics=("dice", "volume_error_ml"), **extra):
    """Write the scores of ``case -> (liver, tumour)``; words stand for empty masks."""
    rows = []
    for case, values in table.items():
        for label, value in zip(("liver", "tumour", "all"), (*values, values[0]), strict=True):
            rule = RULES.get(value, "")
            number = {"missed": 0.0, "invented": 0.0, "absent": np.nan}.get(value, value)
            for metric in metrics:
                rows.append(Score(case=case, label=label, metric=metric, value=number, rule=rule))
    Scores(labels=labels, metrics=metrics, rows=tuple(rows), **extra).write(folder)
    return folder


def table(shift=0.0, n=8):
    values = np.random.default_rng(0).uniform(0.6, 0.9, (n, 2)) + shift
    return {f"case_{i}": tuple(row) for i, row in enumerate(values.tolist())}


@pytest.fixture
def good(tmp_path):
    return write_scores(tmp_path / "good", table(0.05))


@pytest.fixture
def poor(tmp_path):
    return write_scores(tmp_path / "poor", table())


def test_a_methods_only_place_may_stand_alone(good, poor):
    alone = compare({"good": str(good), "poor": poor})
    assert alone.as_dict() == compare({"good": [good], "poor": [poor]}).as_dict()


def test_compares_the_means_that_evaluate_prints(good, poor):
    found = compare({"poor": [poor], "good": [good]})
    assert [method.name for method in found.methods] == ["good", "poor"]
    for method, folder in zip(found.methods, (good, poor), strict=True):
        printed = read_json(folder / "scores.json")["mean_foreground"]["dice"]
        assert method.interval.mean == pytest.approx(printed)
    assert found.subject.measure == "Dice, mean over the structures"
    assert found.pairs[0].difference.mean == pytest.approx(0.05)


def test_compares_one_structure_or_region(good, poor):
    found = compare({"good": [good], "poor": [poor]}, structure="tumour")
    values = [tumour + 0.05 for _, tumour in table().values()]
    assert found.methods[0].values == pytest.approx(values)
    assert found.subject.measure == "Dice of tumour"
    found = compare({"good": [good], "poor": [poor]}, structure="all")
    assert found.subject.measure == "Dice of all"


@pytest.mark.parametrize("metric", ["volume_error_ml", "volume_error_percent"])
def test_signed_errors_have_no_better_direction_and_are_refused(tmp_path, metric):
    """By size, to miss a structure (-100 %) would beat finding it too large by more."""
    folders = [write_scores(tmp_path / n, table(), metrics=("dice", metric)) for n in ("a", "b")]
    with pytest.raises(ConfigError, match=f"metric {metric}: .* no better direction") as refused:
        compare({folder.name: [folder] for folder in folders}, metric=metric)
    assert "absolute_volume_error_ml or relative_volume_error" in refused.value.remedy


def test_what_is_compared_by_default_has_a_better_direction(tmp_path):
    def compared(*metrics):
        names = [f"{name} {len(metrics)}" for name in ("a", "b")]
        return compare({n: [write_scores(tmp_path / n, table(), metrics=metrics)] for n in names})

    assert compared("volume_error_ml", "iou").subject.measure.startswith("IoU")
    with pytest.raises(ConfigError, match="metric volume_error_ml: .* no better direction"):
        compared("volume_error_ml")


def test_scans_of_one_patient_count_once(tmp_path):
    names = [f"p{i}_scan{j}" for i in range(4) for j in range(3)]
    folders = {
        m: [write_scores(tmp_path / m, dict.fromkeys(names, (0.5 + s, 0.5 + s)))]
        for m, s in (("a", 0.0), ("b", 0.1))
    }
    found = compare(folders)
    assert found.subject.patients == ("p0", "p1", "p2", "p3")
    assert found.subject.num_cases == 12
    assert found.pairs[0].wins == 4
    assert any("told by the names" in line for line in found.subject.remarks)


def test_recorded_patients_come_before_names(good, poor):
    for folder in (good, poor):
        known = {"patient": "the same", "reference_sha256": "0"}
        write_json(folder / CASES, dict.fromkeys(table(), known))
    found = compare({"good": [good], "poor": [poor]})
    assert found.subject.patients == ("the same",)
    assert found.subject.remarks == ()


def test_a_case_without_a_score_is_left_out_and_said(tmp_path, good):
    partial = table()
    del partial["case_1"], partial["case_2"]
    lost = {"failures": {"case_1": "damaged"}, "not_predicted": ("case_2",)}
    poor = write_scores(tmp_path / "partial", partial, **lost)
    found = compare({"good": [good], "poor": [poor]})
    assert len(found.subject.patients) == 6
    (line,) = (line for line in found.subject.remarks if line.startswith("Left out"))
    assert "2 cases (case_1, case_2)" in line
    assert "good 0, poor 2" in line


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda d: d.update(version="0.0.9"), f"Lamina: 0.0.9, {__version__}."),
        (lambda d: d.pop("version"), f"Lamina: {__version__}, one that does not say."),
    ],
)
def test_other_versions_of_the_program_are_said_and_no_fault(good, tmp_path, edit, said):
    found = compare({"a": [good], "b": [changed(good, tmp_path, edit)]})
    (line,) = (line for line in found.subject.remarks if "different versions" in line)
    assert line.endswith(said)


def test_references_that_nobody_segmented_are_said_and_no_fault(tmp_path, good):
    more = ("case_98", "case_99")
    poor = write_scores(tmp_path / "more references", table(), not_predicted=more)
    found = compare({"good": [good], "poor": [poor]})
    assert len(found.subject.patients) == 8
    told = " ".join(found.subject.remarks)
    assert "no method has a segmentation: 2 cases (case_98, case_99)" in told
    assert "Left out" not in told


def test_a_missed_structure_counts_and_is_said(tmp_path, good):
    poor = write_scores(tmp_path / "missed", table() | {"case_0": (0.9, "missed")})
    found = compare({"good": [good], "poor": [poor]})
    assert found.methods[1].values[0] == pytest.approx(0.45)
    assert any("good 0, poor 1" in line for line in found.subject.remarks)
    told = " ".join(compare({"good": [good], "poor": [poor]}, structure="liver").subject.remarks)
    assert "missed" not in told


def test_inventing_a_structure_is_never_left_out(tmp_path):
    right = write_scores(tmp_path / "r", table() | {"case_0": (0.9, "absent"), "x": (1, "absent")})
    wrong = write_scores(
        tmp_path / "w", table() | {"case_0": (0.9, "invented"), "x": (1, "absent")}
    )
    found = compare({"right": [right], "wrong": [wrong]}, structure="tumour")
    assert (found.methods[0].name, found.methods[0].values[0]) == ("right", 1)
    assert found.methods[1].values[0] == 0
    assert "x" not in found.subject.patients
    told = " ".join(found.subject.remarks)
    assert "gets 1: 1 case (case_0)" in told
    assert "nobody found anything: 1 case (x)" in told


def test_inventing_costs_beside_other_structures_too(tmp_path):
    """The inventor has the better mean over the structures that the references have."""
    cases = [f"case_{i}" for i in range(6)]
    honest = write_scores(tmp_path / "h", dict.fromkeys(cases, (0.3, "absent")))
    inventor = write_scores(tmp_path / "i", dict.fromkeys(cases, (1.0, "invented")))
    found = compare({"honest": [honest], "inventor": [inventor]})
    means = {method.name: method.interval.mean for method in found.methods}
    assert means == {"honest": pytest.approx(0.65), "inventor": pytest.approx(0.5)}
    assert any("gets 1: 6 cases" in line for line in found.subject.remarks)


def test_seeds_of_a_method_are_one_method(tmp_path, poor):
    seeds = [write_scores(tmp_path / f"seed_{i}", table(0.05 + 0.01 * i)) for i in range(3)]
    found = compare({"good": seeds, "poor": [poor]})
    assert found.methods[0].interval.mean - found.methods[1].interval.mean == pytest.approx(0.06)
    assert found.methods[0].seeds.between == pytest.approx(0.01)


def changed(folder, tmp_path, edit):
    copy = tmp_path / "changed"
    shutil.copytree(folder, copy)
    data = read_json(copy / "scores.json")
    edit(data)
    write_json(copy / "scores.json", data)
    return copy


@pytest.mark.parametrize(
    ("edit", "said", "remedy"),
    [
        (
            lambda d: d["rules"]["dice"].update(both_empty=1.0),
            "dice: empty masks differs",
            "one version of Lamina",
        ),
        (lambda d: d["definitions"].update(dice="Jaccard."), "dice: definition", "one version"),
        (lambda d: d["units"].update(dice="ml"), "dice: unit differs", "one version of Lamina"),
        (
            lambda d: d["labels"]["regions"].update(all=["liver"]),
            "regions, or what is ignored",
            "with labels that say the same",
        ),
        (
            lambda d: d["failures"].update(case_99="damaged"),
            "1 case (case_99) only in the second",
            "the same cases",
        ),
        (
            lambda d: [row.update(rule="both empty") for row in d["rows"][:6]],
            "case_0 was scored",
            "the same references",
        ),
    ],
)
def test_refuses_what_answers_another_question(good, tmp_path, edit, said, remedy):
    other = changed(good, tmp_path, edit)
    with pytest.raises(DatasetError) as refused:
        compare({"a": [good], "b": [other]}, tmp_path / "out")
    assert said in refused.value.message
    assert str(good) in refused.value.message
    assert str(other) in refused.value.message
    assert remedy in refused.value.remedy
    assert not (tmp_path / "out").exists()


def test_refuses_other_structures_and_other_cases(good, tmp_path):
    labels = LabelSet(values={"liver": 1, "cyst": 2}, regions={"all": ("liver", "cyst")})
    rows = table()
    other = write_scores(tmp_path / "fewer", {c: rows[c] for c in ("case_0", "case_1")})
    with pytest.raises(DatasetError, match=r"cases differ: 6 cases \(case_2, .* and 1 more\) only"):
        compare({"a": [good], "b": [other]})
    content = read_json(good / "scores.json")
    for row in content["rows"]:
        row["label"] = row["label"].replace("tumour", "cyst")
    write_json(other / "scores.json", content | {"labels": labels.as_dict()})
    with pytest.raises(DatasetError, match="structures differ: liver, tumour in one, liver, cyst"):
        compare({"a": [good], "b": [other]})


def test_refuses_other_references_and_patients(good, poor):
    cases = {case: {"patient": None, "reference_sha256": case} for case in table()}
    write_json(good / CASES, cases)
    write_json(poor / CASES, cases)
    compare({"a": [good], "b": [poor]})
    write_json(poor / CASES, cases | {"case_3": {"patient": None, "reference_sha256": "other"}})
    with pytest.raises(DatasetError, match="case_3 was scored against different references"):
        compare({"a": [good], "b": [poor]})
    write_json(good / CASES, {c: known | {"patient": "p"} for c, known in cases.items()})
    write_json(poor / CASES, {c: known | {"patient": "q"} for c, known in cases.items()})
    with pytest.raises(DatasetError, match="different patients, p and q"):
        compare({"a": [good], "b": [poor]})


def test_references_are_compared_between_all(good, poor, tmp_path):
    """The first does not say what its references were; the others do, and differ."""
    third = write_scores(tmp_path / "third", table(0.1))
    for folder, digest in ((poor, "one"), (third, "another")):
        known = {"patient": None, "reference_sha256": digest}
        write_json(folder / CASES, dict.fromkeys(table(), known))
    with pytest.raises(DatasetError, match="case_0 was scored against different references"):
        compare({"a": [good], "b": [poor], "c": [third]})


def test_scores_as_a_paper_measured_are_refused_for_what_they_are(poor, tmp_path):
    metrics = ("transunet_dice",)
    paper = write_scores(tmp_path / "paper", table(), metrics=metrics, protocol="transunet")
    for metric in (None, "transunet_dice"):
        for places in ((paper, poor), (poor, paper)):
            with pytest.raises(DatasetError, match="protocol transunet") as refused:
                compare({place.name: [place] for place in places}, metric=metric)
            assert "again without a protocol" in refused.value.remedy


def test_a_file_in_place_of_the_folder_is_refused_before_any_work(good, tmp_path):
    (tmp_path / "t.md").touch()
    with pytest.raises(FileError, match=r"t\.md: is a file\. Give another place"):
        compare({"a": [good], "b": [tmp_path / "nowhere"]}, tmp_path / "t.md")


def test_refuses_what_cannot_be_named(good, poor, tmp_path):
    both = {"a": [good], "b": [poor]}
    with pytest.raises(UnknownNameError, match="metric hd95: is not in"):
        compare(both, metric="hd95")
    signed = [write_scores(tmp_path / n, table(), metrics=("volume_error_ml",)) for n in "cd"]
    with pytest.raises(UnknownNameError, match="It has none that has a better direction"):
        compare({folder.name: [folder] for folder in signed}, metric="dice")
    with pytest.raises(UnknownNameError, match="structure spleen: is not in"):
        compare(both, structure="spleen")
    with pytest.raises(ConfigError, match="at least two methods"):
        compare({"a": [good]})
    with pytest.raises(ConfigError, match="given twice"):
        compare({"a": [good], "b": [good]})
    with pytest.raises(DatasetError, match="no such file or folder"):
        compare({"a": [good], "b": [tmp_path / "nowhere"]})
    (tmp_path / "model.lamina").touch()
    with pytest.raises(DatasetError, match="a run without scores"):
        compare({"a": [good], "b": [tmp_path]})


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d.pop("rules"),
        lambda d: d["rows"].pop(),
        lambda d: d["rows"][0].update(value="high"),
        lambda d: d["rows"][0].update(value="inf"),
        lambda d: d.update(rows=3),
        lambda d: d.update(labels=[]),
        lambda d: d.update(failures=None),
    ],
)
def test_damaged_scores_are_named(good, poor, tmp_path, edit):
    broken = changed(poor, tmp_path, edit)
    with pytest.raises(LaminaError, match=r"scores\.json|labels: cannot be read"):
        compare({"a": [good], "b": [broken]})


def test_scores_that_are_no_json_are_named(good, tmp_path):
    (tmp_path / "scores.json").write_text("{")
    with pytest.raises(FileError, match="not valid JSON"):
        compare({"a": [good], "b": [tmp_path]})
    (tmp_path / "scores.json").write_text("[]")
    with pytest.raises(FileError, match="is not what evaluate writes"):
        compare({"a": [good], "b": [tmp_path]})


def test_nothing_in_common_is_refused(tmp_path):
    everything = {"a": (0.5, 0.5), "b": (0.5, 0.5)}
    one, two = (
        write_scores(tmp_path / case, {case: everything[case]}, failures={other: "damaged"})
        for case, other in (("a", "b"), ("b", "a"))
    )
    with pytest.raises(DatasetError, match="no case is left to compare"):
        compare({"one": [one], "two": [two]})


def test_a_cross_validation_is_a_place_of_scores(good, tmp_path):
    run = tmp_path / "run"
    write_scores(run / "out_of_fold", table())
    found = compare({"file": [good / "scores.json"], "run": [run]})
    assert found.methods[1].name == "run"


def test_leaves_figures_tables_and_pictures(good, poor, tmp_path):
    third = write_scores(tmp_path / "third", table(0.02))
    out = tmp_path / "out"
    found = compare({"good": [good], "poor": [poor], "third": [third]}, out)
    assert sorted(path.name for path in out.iterdir()) == [
        *("compare.json", "compare.md", "compare.tex", "critical_difference.png"),
        *("differences.png", "rank_stability.png", "significance.png"),
    ]
    content = read_json(out / "compare.json")
    assert content["scores"] == {"good": [str(good)], "poor": [str(poor)], "third": [str(third)]}
    assert content["methods"][0]["interval"]["low"] == found.methods[0].interval.low
    assert content["cautions"] == list(found.cautions)


@pytest.fixture
def scored_twice(tmp_path):
    """Scores of one set of segmentations against two sets of references of the same structures."""
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    folders = []
    for name, size in (("seg", 5), ("one", 4), ("two", 6)):
        array = np.zeros((1, 8, 8, 4), np.uint8)
        array[:, 1:size, 1:4] = 1
        write_volume(Volume(array, affine, name), tmp_path / name / "scan_1.nii.gz")
    for name in ("one", "two"):
        evaluate(
            tmp_path / "seg", tmp_path / name, out=tmp_path / f"scores {name}", metrics=["dice"]
        )
        folders.append(tmp_path / f"scores {name}")
    return folders


def test_evaluate_leaves_what_tells_references_apart(scored_twice):
    one, two = scored_twice
    with pytest.raises(DatasetError, match="scan_1 was scored against different references"):
        compare({"one": [one], "two": [two]})
    assert read_evaluation(one).references.keys() == {"scan_1"}


def test_the_scores_of_a_runs_own_scans_know_the_patients(tiny_run, tmp_path):
    from lamina.workflows.predict import predict

    predict(tiny_run, out=tmp_path / "seg", split="val")
    scores = evaluate(tmp_path / "seg", out=tmp_path / "scores", metrics=["dice"])
    found = read_evaluation(tmp_path / "scores")
    assert found.patients.keys() == found.references.keys() == set(scores.cases)
