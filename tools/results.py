"""Keep measured results as records, and write the tables of results from them.

    python tools/results.py add NAME --run RUN --scores SCORES --note "how it was run"
    python tools/results.py render

A record holds what the run's manifest and the evaluation say, without any path of the machine.
"""

import argparse
import json
from collections import defaultdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from lamina.evaluation.statistics.intervals import mean_interval
from lamina.evaluation.statistics.paired import holm, signed_rank
from lamina.workflows.scored import Evaluation, read_evaluation

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "docs" / "results"
PAGE = ROOT / "docs" / "results.md"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
METRICS = ("dice", "iou", "hd95")
_DROPPED = ("val_cases", "plan", "config", "network", "hashes", "work")
_HEAD = """# Results

Networks trained by Lamina's own commands on real scans, scored in full resolution on validation
scans that also chose the epoch. `make results` writes this page from the records in
`docs/results/`.

Three networks with the same time and three seeds each, hippocampus, fold 0, one core, compared by
`lamina compare`: [tables and pictures](results/hippocampus_240s/compare.md). Each was trained by
`lamina train W --model NAME --fold 0 --seed N --time-budget 240s --set steps_per_epoch=100000`;
the one validation, at the end, came on top.
"""
_FOOT = """
Dice and IoU are means over structures, then over patients, with a BCa bootstrap interval of 95 %
over patients. A structure that is missed counts as zero, and for HD95 as the diagonal of the scan.
*Against the first*: mean paired difference in Dice, and the p value of Wilcoxon's signed rank test,
corrected after Holm within the table. One seed and one fold each unless a note says otherwise:
differences of a point may be chance.
"""


def main() -> None:
    """Run one of the two verbs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    add = verbs.add_parser("add", help="make a record from a run and its evaluation")
    add.add_argument("name")
    add.add_argument("--run", type=Path, required=True)
    add.add_argument("--scores", type=Path, required=True)
    add.add_argument("--note", required=True)
    verbs.add_parser("render", help="write the tables")
    arguments = parser.parse_args()
    if arguments.verb == "add":
        write_record(arguments.name, arguments.run, arguments.scores, arguments.note)
    records = read_records()
    PAGE.write_text(page(records), "utf-8")
    readme = ROOT / "README.md"
    readme.write_text(with_table(readme.read_text("utf-8"), records), "utf-8")


def write_record(name: str, run: Path, scores: Path, note: str) -> None:
    """Put together what is known about one result."""
    manifest = json.loads((run / "manifest.json").read_text("utf-8"))
    history = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    manifest["machine"].pop("platform")
    evaluation = json.loads((scores / "scores.json").read_text("utf-8"))
    patients = by_patient(read_evaluation(scores))
    record = {
        "note": note,
        "run": {key: value for key, value in manifest.items() if key not in _DROPPED},
        "network": manifest["network"]["name"],
        "num_validation_cases": len(manifest["val_cases"]),
        "steps": history[-1]["step"],
        "seconds": history[-1]["elapsed_s"],
        "model_mb": round((run / "model.lamina").stat().st_size / 1e6, 2),
        "mean_foreground": {
            metric: evaluation["mean_foreground"].get(metric) for metric in METRICS
        },
        "unit": evaluation["unit"],
        "structures": {name: of["dice"]["mean"] for name, of in evaluation["summary"].items()},
        "patients_sha256": sha256(repr(sorted(patients)).encode()).hexdigest(),
        "per_patient": {
            metric: [round(patients[patient][metric], 5) for patient in sorted(patients)]
            for metric in METRICS
        },
    }
    RECORDS.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    (RECORDS / f"{name}.json").write_text(text, "utf-8")


def by_patient(found: Evaluation) -> dict[str, dict[str, float]]:
    """Return each patient's means over cases of the means over structures; NaN where none has."""
    cases: dict[str, list[str]] = defaultdict(list)
    for case in found.present:
        cases[found.patients.get(case, case)].append(case)
    return {
        patient: {
            metric: _mean([_mean(found.values[metric][case].values()) for case in theirs])
            for metric in METRICS
        }
        for patient, theirs in cases.items()
    }


def _mean(values: Any) -> float:
    numbers = np.array([value for value in values if np.isfinite(value)])
    return float(numbers.mean()) if len(numbers) else float("nan")


def read_records() -> dict[str, list[dict[str, Any]]]:
    """Return records by dataset, the best first."""
    sets: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for path in sorted(RECORDS.glob("*.json")):
        record = json.loads(path.read_text("utf-8"))
        sets[record["run"]["dataset"]["name"]].append(record)
    for records in sets.values():
        records.sort(key=lambda record: record["mean_foreground"]["dice"], reverse=True)
    return dict(sorted(sets.items()))


def page(sets: dict[str, list[dict[str, Any]]]) -> str:
    """Return the page of all results."""
    parts = [_HEAD, *(_section(name, records) for name, records in sets.items()), _FOOT]
    return "\n".join(parts)


def _section(name: str, records: list[dict[str, Any]]) -> str:
    first = records[0]
    licence = first["run"]["dataset"].get("licence") or "unknown"
    count, trained = first["num_validation_cases"], first["run"]["num_training_cases"]
    lines = [
        f"## {name}\n",
        f"{trained} scans to train on, {count} to validate. Licence of the scans: {licence}.\n",
        "| network | Dice | IoU | HD95 | against the first | training | model |",
        "|---|---|---|---|---|---|---|",
    ]
    compared = _against_first(records)
    lines += [_row(record, text) for record, text in zip(records, compared, strict=True)]
    notes = [f"- {record['network']}: {record['note']}" for record in records]
    return "\n".join([*lines, "", *notes, ""])


def _against_first(records: list[dict[str, Any]]) -> list[str]:
    """Return the paired difference to the best, with its p value, where patients are the same."""
    first, told = records[0], {}
    for number, record in enumerate(records[1:], start=1):
        if "per_patient" in first and record.get("patients_sha256") == first["patients_sha256"]:
            own, best = (np.array(r["per_patient"]["dice"]) for r in (record, first))
            told[number] = own - best
    p_values = holm([signed_rank(differences).p for differences in told.values()])
    texts = ["" if number else "–" for number in range(len(records))]
    for (number, differences), p in zip(told.items(), p_values, strict=True):
        texts[number] = f"{differences.mean():+.3f}, p {p:.2g}"
    return texts


def _row(record: dict[str, Any], compared: str) -> str:
    mean = record["mean_foreground"]
    dice = f"**{mean['dice']:.3f}**"
    if "per_patient" in record:
        interval = mean_interval(np.array(record["per_patient"]["dice"]))
        dice += f" [{interval.low:.3f}, {interval.high:.3f}]"
    cells = [record["network"], dice, f"{mean['iou']:.3f}", _hd95(record), compared]
    return f"| {' | '.join([*cells, _training(record), _size(record)])} |"


def _hd95(record: dict[str, Any]) -> str:
    value = record["mean_foreground"].get("hd95")
    return "–" if value is None else f"{value:.2f} {record.get('unit', 'mm')}"


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
        "| data | network | validation scans | Dice | IoU | HD95 | training | model |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, (best, *_) in sets.items():
        mean = best["mean_foreground"]
        cells = [name, best["network"], str(best["num_validation_cases"])]
        cells += [f"**{mean['dice']:.3f}**", f"{mean['iou']:.3f}", _hd95(best)]
        lines.append(f"| {' | '.join([*cells, _training(best), _size(best)])} |")
    head, _, rest = readme.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return "\n".join([head + BEGIN, "", *lines, "", END + tail])


if __name__ == "__main__":
    main()
