"""Keep measured results as records, from which ``tools/results_page.py`` writes the tables.

    python tools/results.py add NAME --run RUN --scores SCORES --note "how it was run"
    python tools/results.py timed NAME --model MODEL --image SCAN

Of a cross-validation RUN is the folder of all folds, and SCORES its ``out_of_fold``; time and steps
are those of all folds together, and the model is one fold's; of a run that began from a model,
``--after``, they are those of both. ``timed`` adds what predicting one
scan takes on one thread; run it while nothing else does. Records hold what a run's manifest, its
model and the evaluation say, without any path or name of the machine.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from lamina.bundle import load_bundle
from lamina.data.case import patient_of
from lamina.errors import some
from lamina.evaluation.metrics import METRICS
from lamina.evaluation.statistics.pairing import mean_over
from lamina.folders.bundle import find_bundle
from lamina.folders.evaluation import Evaluation, read_evaluation
from lamina.folders.run import ALL, RunFolder, read_history
from lamina.report.facts import window_cost

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "docs" / "results"
OVERLAPS, DISTANCES = ("dice", "iou"), ("hd95",)
_REPEATS = 3
_DROPPED = {
    *("val_cases", "test_cases", "plan", "config", "network", "hashes", "work", "process"),
    *("ranges", "start"),
}
_OF_ONE_FOLD = {"fold", "num_training_cases", "outcome"}


def main() -> None:
    """Run one of the verbs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    timed = verbs.add_parser("timed", help="add time and memory of a prediction to a record")
    timed.add_argument("name")
    timed.add_argument("--model", type=Path, required=True)
    timed.add_argument("--image", type=Path, required=True)
    timed.add_argument("--pixel-size", help="of a picture that does not tell it")
    timed.add_argument("--tta", action="store_true", help="in all mirror images")
    add = verbs.add_parser("add", help="make a record from a run and its evaluation")
    add.add_argument("name")
    add.add_argument("--run", type=Path, required=True)
    add.add_argument("--scores", type=Path, required=True)
    add.add_argument("--note", required=True)
    add.add_argument(
        "--after",
        type=Path,
        nargs="+",
        default=[],
        help="the model it began from, that model's own, and so on",
    )
    add.add_argument("--variant", default="", help="what tells it from others of its network")
    add.add_argument("--group", default="", help="table of its own within the set: 150 s each")
    add.add_argument("--beside", help="record of the same patients, to be shown in its table")
    add.add_argument(
        "--no-distances", action="store_true", help="where the spacing of the scans is not known"
    )
    arguments = parser.parse_args()
    if arguments.verb == "add":
        more = {name: getattr(arguments, name) for name in ("variant", "group", "beside")}
        about = arguments.run, arguments.scores, arguments.note, not arguments.no_distances
        write_record(arguments.name, *about, arguments.after, **more)
    if arguments.verb == "timed":
        options = ["--pixel-size", arguments.pixel_size] if arguments.pixel_size else []
        options += ["--tta"] * arguments.tta
        path = RECORDS / f"{arguments.name}.json"
        record = json.loads(path.read_text("utf-8"))
        record["prediction"] = prediction_cost(arguments.model, arguments.image, options)
        _write(path, record)


def write_record(
    name: str,
    run: Path,
    scores: Path,
    note: str,
    distances: bool = True,
    after: Sequence[Path] = (),
    **more: str | None,
) -> None:
    """Put together what is known about one result; ``more`` says how it is shown.

    Steps and time are those of the models ``after`` which it went on, too.
    """
    folds = folds_of(run)
    manifest = folds[0].manifest()
    last = [read_history(each)[-1] for each in folds]
    earlier = before(manifest, after)
    manifest["machine"].pop("platform", None)
    whole = {"num_folds": len(folds)} if len(folds) > 1 else {}
    dropped = _DROPPED | _OF_ONE_FOLD if whole else _DROPPED
    found = read_evaluation(scores)
    _check_whole(found)
    evaluation = json.loads(found.path.read_text("utf-8"))
    unit, metrics = evaluation["unit"], (*OVERLAPS, *(DISTANCES if distances else ()))
    names = {metric: METRICS.get(metric).measured_in(unit).name for metric in metrics}
    patients = by_patient(found, names)
    record = {
        "note": note,
        "run": {key: value for key, value in manifest.items() if key not in dropped},
        **whole,
        "network": manifest["network"]["name"],
        "spatial_dims": manifest["plan"]["spatial_dims"],
        "cost": window_cost(load_bundle(folds[0].bundle_file)),
        "num_validation_cases": evaluation["num_cases"],
        "steps": sum(line["step"] for line in last) + sum(each["steps"] for each in earlier),
        "seconds": sum(line["elapsed_s"] for line in last)
        + sum(each["seconds"] for each in earlier),
        "model_mb": round(folds[0].bundle_file.stat().st_size / 1e6, 2),
        "unit": unit,
        "structures": {name: of["dice"]["mean"] for name, of in evaluation["summary"].items()},
        "patients_sha256": _hash_of(patients),
        "cases_sha256": _hash_of(found.present),
        "per_patient": {
            metric: [_rounded(patients[patient][metric]) for patient in sorted(patients)]
            for metric in metrics
        },
    } | {key: value for key, value in more.items() if value}
    RECORDS.mkdir(parents=True, exist_ok=True)
    _write(RECORDS / f"{name}.json", record)


def _check_whole(found: Evaluation) -> None:
    """Refuse scores without some scans: means without the hard ones look better than they are."""
    for lacking, what in (
        (found.scores.failures, "failed"),
        (found.scores.not_predicted, "not segmented"),
    ):
        if lacking:
            raise SystemExit(
                f"{found.path}: {len(lacking)} {what} ({some(sorted(lacking))}). Segment "
                "all scans, and score them against the references of these scans alone."
            )


def _hash_of(names: Iterable[str]) -> str:
    return sha256(repr(sorted(names)).encode()).hexdigest()


def before(manifest: Mapping[str, Any], models: Sequence[Path]) -> list[Mapping[str, Any]]:
    """Return what training took the models from which a run began, sure that it is all of them."""
    trainings, start = [], manifest.get("start")
    for model in models:
        file = find_bundle(model)
        if not start or start["model"] != sha256(file.read_bytes()).hexdigest():
            raise SystemExit(f"--after {model}: is not what was begun from.")
        bundle = load_bundle(file)
        trainings.append(bundle.training)
        told = RunFolder(model).manifest() if model.is_dir() else bundle.provenance
        start = told.get("start")
    if start:
        raise SystemExit("--after: lacks a model that was begun from.")
    return trainings


def folds_of(run: Path) -> list[RunFolder]:
    """Return the run, or the runs of its folds where it is of all of them."""
    manifest = RunFolder(run).manifest()
    if manifest["fold"] != ALL:
        return [RunFolder(run)]
    count, trained = manifest["num_folds"], len(manifest["trained"])
    if trained < count:
        raise SystemExit(f"{run}: {trained} of {count} folds are trained.")
    folds = [RunFolder(run).fold(fold) for fold in range(count)]
    first, *others = (fold.manifest() for fold in folds)
    for fold, other in enumerate(others, start=1):
        for what in ("network", "plan"):
            if other[what] != first[what]:
                raise SystemExit(f"{run}: fold {fold} has another {what} than fold 0.")
    return folds


def _write(path: Path, record: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")


def prediction_cost(model: Path, image: Path, options: Sequence[str] = ()) -> dict[str, float]:
    """Return the seconds, from file to file, and the most memory of predicting one scan.

    On one thread; the median of three runs.
    """
    taken = []
    for _ in range(_REPEATS):
        with TemporaryDirectory() as folder:
            out = Path(folder) / "out"
            command = [sys.executable, "-m", "lamina", "predict", "-q", *options]
            command += ["-m", str(model), "-i", str(image), "-o", str(out)]
            subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            (case,) = json.loads((out / "prediction.json").read_text("utf-8"))["cases"]
            taken.append(case["seconds"])
    peak_kb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {"seconds": median(taken), "memory_gb": round(peak_kb / 2**20, 2)}


def by_patient(found: Evaluation, names: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Return each patient's means over cases of the means over structures; NaN where none has.

    Args:
        found: The scores.
        names: Metric -> what it is called in the scores' unit.
    """
    structures = [*found.scores.labels.values]
    cases: dict[str, list[str]] = defaultdict(list)
    for case in found.present:
        cases[found.patients.get(case) or patient_of(case)].append(case)

    def mean(name: str, theirs: list[str]) -> float:
        values = found.values[name]
        return mean_over({case: mean_over(values[case], structures) for case in theirs}, theirs)

    return {
        patient: {metric: mean(name, theirs) for metric, name in names.items()}
        for patient, theirs in cases.items()
    }


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 5)


if __name__ == "__main__":
    main()
