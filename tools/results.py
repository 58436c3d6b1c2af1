"""Keep measured results as records, and write the tables of results from them.

    python tools/results.py add NAME --run RUN --scores SCORES --note "how it was run"
    python tools/results.py timed NAME --model MODEL --image SCAN
    python tools/results.py render

``timed`` adds what predicting one scan takes on one thread; run it while nothing else does. Records
hold what a run's manifest, its model and the evaluation say, without any path or name of the
machine.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from lamina.bundle import load_bundle
from lamina.evaluation.metrics import METRICS
from lamina.evaluation.statistics.intervals import mean_interval
from lamina.evaluation.statistics.paired import holm, signed_rank
from lamina.report.facts import window_cost
from lamina.workflows.scored import Evaluation, read_evaluation

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "docs" / "results"
PAGE = ROOT / "docs" / "results.md"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
KEPT = ("dice", "iou", "hd95")
_REPEATS = 3
_DROPPED = {
    *("val_cases", "test_cases", "plan", "config", "network", "hashes", "work", "process"),
    "ranges",
}
_COLUMNS = (
    *("network", "Dice", "IoU", "HD95", "against the first"),
    *("parameters", "GMAC", "a scan", "training", "model"),
)
_HEAD = """# Results

Networks trained by Lamina's own commands on real scans and pictures, scored in full resolution on
those that also chose the epoch. `make results` writes this page from the records in
`docs/results/`. [Benchmarks](benchmarks.md) tell what predictions take of time and memory.

Eight networks with little time, hippocampus, fold 0, one core, compared by `lamina compare`:
[tables and pictures](results/hippocampus_240s/compare.md). Each was trained by
`lamina train W --model NAME --fold 0 --seed N --time-budget 240s --set steps_per_epoch=100000`.
LightMedSeg, LGMSNet and DynUNet have three seeds and trained for the whole budget, with the
validation on top. The others came later, with one seed, another training on the other core, and
the validation within the budget: they trained for less, so that only differences among the first
three, and among the others, are at equal time. Heavy networks take few steps in it. At the default
learning rate of 0.006 MPU-Net diverged and SegResNet found nothing; they were given 0.0001, as in
MPU-Net's paper, and 0.001.
"""
_FOOT = """
Dice and IoU are means over structures, then over cases, with a BCa bootstrap interval of 95 % of
the mean over patients; a case that rightly shows nothing has neither, so that networks may be
averaged over different cases. A structure that is missed or invented counts as zero, and for HD95
as the diagonal of the scan. HD95 is in millimetres or, where pictures do not tell how large they
are, in pixels (px) of the file, at whatever size the network sees it. *GMAC* are billions of
multiply-accumulates for one window of the size beside them; larger scans take several. *A scan*:
predicting one of usual size on one CPU thread, from file to file, with the program's memory.
*Against the first*: mean difference in Dice over patients that have one in both, and the p value of
Wilcoxon's signed rank test, corrected after Holm within the table. One seed and one fold each
unless a note says otherwise: differences of a point may be chance.
"""


def main() -> None:
    """Run one of the verbs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    timed = verbs.add_parser("timed", help="add time and memory of a prediction to a record")
    timed.add_argument("name")
    timed.add_argument("--model", type=Path, required=True)
    timed.add_argument("--image", type=Path, required=True)
    timed.add_argument("--pixel-size", help="of a picture that does not tell it")
    add = verbs.add_parser("add", help="make a record from a run and its evaluation")
    add.add_argument("name")
    add.add_argument("--run", type=Path, required=True)
    add.add_argument("--scores", type=Path, required=True)
    add.add_argument("--note", required=True)
    add.add_argument("--variant", default="", help="what tells it from others of its network")
    add.add_argument("--beside", help="record of the same patients, to be shown in its table")
    add.add_argument(
        "--metrics",
        nargs="+",
        choices=KEPT,
        default=KEPT,
        help="without hd95 where the spacing of the scans is not known",
    )
    verbs.add_parser("render", help="write the tables")
    arguments = parser.parse_args()
    if arguments.verb == "add":
        more = {"variant": arguments.variant, "beside": arguments.beside}
        about = arguments.run, arguments.scores, arguments.note, arguments.metrics
        write_record(arguments.name, *about, **more)
    if arguments.verb == "timed":
        options = ["--pixel-size", arguments.pixel_size] if arguments.pixel_size else []
        path = RECORDS / f"{arguments.name}.json"
        record = json.loads(path.read_text("utf-8"))
        record["prediction"] = prediction_cost(arguments.model, arguments.image, options)
        _write(path, record)
    records = read_records()
    PAGE.write_text(page(records), "utf-8")
    readme = ROOT / "README.md"
    readme.write_text(with_table(readme.read_text("utf-8"), records), "utf-8")


def write_record(
    name: str,
    run: Path,
    scores: Path,
    note: str,
    metrics: Sequence[str] = KEPT,
    **more: str | None,
) -> None:
    """Put together what is known about one result; ``more`` says how it is shown."""
    manifest = json.loads((run / "manifest.json").read_text("utf-8"))
    history = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    manifest["machine"].pop("platform", None)
    evaluation = json.loads((scores / "scores.json").read_text("utf-8"))
    unit = evaluation["unit"]
    names = {metric: METRICS.get(metric).measured_in(unit).name for metric in metrics}
    patients = by_patient(read_evaluation(scores), names)
    record = {
        "note": note,
        "run": {key: value for key, value in manifest.items() if key not in _DROPPED},
        "network": manifest["network"]["name"],
        "spatial_dims": manifest["plan"]["spatial_dims"],
        "cost": window_cost(load_bundle(run / "model.lamina")),
        "num_validation_cases": len(manifest["val_cases"]),
        "steps": history[-1]["step"],
        "seconds": history[-1]["elapsed_s"],
        "model_mb": round((run / "model.lamina").stat().st_size / 1e6, 2),
        "mean_foreground": {
            metric: evaluation["mean_foreground"].get(name) for metric, name in names.items()
        },
        "unit": unit,
        "structures": {name: of["dice"]["mean"] for name, of in evaluation["summary"].items()},
        "patients_sha256": sha256(repr(sorted(patients)).encode()).hexdigest(),
        "per_patient": {
            metric: [_rounded(patients[patient][metric]) for patient in sorted(patients)]
            for metric in metrics
        },
    } | {key: value for key, value in more.items() if value}
    RECORDS.mkdir(parents=True, exist_ok=True)
    _write(RECORDS / f"{name}.json", record)


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
    cases: dict[str, list[str]] = defaultdict(list)
    for case in found.present:
        cases[found.patients.get(case, case)].append(case)
    return {
        patient: {
            metric: _mean([_mean(found.values[name][case].values()) for case in theirs])
            for metric, name in names.items()
        }
        for patient, theirs in cases.items()
    }


def _mean(values: Any) -> float:
    numbers = np.array([value for value in values if np.isfinite(value)])
    return float(numbers.mean()) if len(numbers) else float("nan")


def _rounded(value: float) -> float | None:
    return round(value, 5) if np.isfinite(value) else None


def _dice(record: dict[str, Any]) -> Any:
    """Return the Dice of each patient; NaN where there is nothing to find."""
    return np.array(record["per_patient"]["dice"], float)


def read_records() -> dict[str, list[dict[str, Any]]]:
    """Return records by dataset, the best first."""
    sets: dict[str, list[dict[str, Any]]] = defaultdict(list)
    found = {path.stem: json.loads(path.read_text("utf-8")) for path in RECORDS.glob("*.json")}
    for name, record in sorted(found.items()):
        of = found.get(record.get("beside", name), {})
        if not of or of.get("patients_sha256") != record.get("patients_sha256"):
            raise SystemExit(f"{name}: its patients are not those of {record['beside']}.")
        sets[of["run"]["dataset"]["name"]].append(record)
    for records in sets.values():
        records.sort(key=lambda record: record["mean_foreground"]["dice"], reverse=True)
    return dict(sorted(sets.items()))


def page(sets: dict[str, list[dict[str, Any]]]) -> str:
    """Return the page of all results."""
    parts = [_HEAD, *(_section(name, records) for name, records in sets.items()), _FOOT]
    return "\n".join(parts)


def _section(name: str, records: list[dict[str, Any]]) -> str:
    first = records[0]
    about = first["run"]["dataset"]
    licence, source = about.get("licence") or "unknown", about.get("source")
    count, trained = first["num_validation_cases"], first["run"]["num_training_cases"]
    what = "pictures" if first.get("spatial_dims") == 2 else "scans"
    lines = [
        f"## {name}\n",
        f"{trained} {what} to train on, {count} to validate. Licence of the {what}: {licence}."
        + (f" {source}" if source else "")
        + "\n",
        f"| {' | '.join(_COLUMNS)} |",
        "|---" * len(_COLUMNS) + "|",
    ]
    compared = _against_first(records)
    lines += [_row(record, text) for record, text in zip(records, compared, strict=True)]
    notes = [f"- {_called(record)}: {record['note']}" for record in records]
    return "\n".join([*lines, "", *notes, ""])


def _against_first(records: list[dict[str, Any]]) -> list[str]:
    """Return the paired difference to the best, with its p value, where patients are the same."""
    first, told = records[0], {}
    for number, record in enumerate(records[1:], start=1):
        if "per_patient" in first and record.get("patients_sha256") == first["patients_sha256"]:
            differences = _dice(record) - _dice(first)
            told[number] = differences[np.isfinite(differences)]
    p_values = holm([signed_rank(differences).p for differences in told.values()])
    texts = ["" if number else "–" for number in range(len(records))]
    for (number, differences), p in zip(told.items(), p_values, strict=True):
        texts[number] = f"{differences.mean():+.3f}, p {p:.2g}"
    return texts


def _row(record: dict[str, Any], compared: str) -> str:
    mean = record["mean_foreground"]
    dice = f"**{mean['dice']:.3f}**"
    if "per_patient" in record:
        values = _dice(record)
        interval = mean_interval(values[np.isfinite(values)])
        dice += "" if interval.missing else f" [{interval.low:.3f}, {interval.high:.3f}]"
    cells = [_called(record), dice, f"{mean['iou']:.3f}", _hd95(record), compared]
    cells += [*_cost(record), _prediction(record), _training(record), _size(record)]
    return f"| {' | '.join(cells)} |"


def _called(record: dict[str, Any]) -> str:
    return ", ".join([record["network"], *filter(None, [record.get("variant")])])


def _hd95(record: dict[str, Any]) -> str:
    value = record["mean_foreground"].get("hd95")
    return "–" if value is None else f"{value:.2f} {record.get('unit', 'mm')}"


def _cost(record: dict[str, Any]) -> tuple[str, str]:
    """Return weights and operations; dashes for records that are older than these."""
    cost = record.get("cost")
    if cost is None:
        return "–", "–"
    window = "×".join(map(str, cost["window"]))
    return f"{cost['parameters'] / 1e6:.2f} M", f"{cost['macs'] / 1e9:.2f} ({window})"


def _prediction(record: dict[str, Any]) -> str:
    cost = record.get("prediction")
    return f"{cost['seconds']:.2g} s, {cost['memory_gb']:.1f} GB" if cost else "–"


def _training(record: dict[str, Any]) -> str:
    machine = record["run"]["machine"]
    cores = machine["threads"]
    device = machine["gpu"] or f"{cores} CPU core{'s' if cores > 1 else ''}"
    return f"{record['seconds'] / 60:.0f} min, {record['steps']:,} steps, {device}"


def _size(record: dict[str, Any]) -> str:
    return f"{record['model_mb']:.1f} MB"


def with_table(readme: str, sets: dict[str, list[dict[str, Any]]]) -> str:
    """Return the README with the best result of each dataset between its markers."""
    lines = [
        "| data | network | validated on | Dice | IoU | HD95 | training | model |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, (best, *_) in sets.items():
        mean = best["mean_foreground"]
        cells = [name, _called(best), str(best["num_validation_cases"])]
        cells += [f"**{mean['dice']:.3f}**", f"{mean['iou']:.3f}", _hd95(best)]
        lines.append(f"| {' | '.join([*cells, _training(best), _size(best)])} |")
    head, _, rest = readme.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return "\n".join([head + BEGIN, "", *lines, "", END + tail])


if __name__ == "__main__":
    main()
