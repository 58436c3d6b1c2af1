"""Keep measured results as records, and write the README's table from them.

    python tools/results.py add NAME --run RUN --scores SCORES --note "how it was run"
    python tools/results.py render

A record holds what the run's manifest and the evaluation say, without any path of the machine.
"""

import argparse
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "docs" / "results"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
_DROPPED = ("val_cases", "plan", "config", "network", "hashes")


def main() -> None:
    """Run one of the two verbs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    add = verbs.add_parser("add", help="make a record from a run and its evaluation")
    add.add_argument("name")
    add.add_argument("--run", type=Path, required=True)
    add.add_argument("--scores", type=Path, required=True)
    add.add_argument("--note", required=True)
    verbs.add_parser("render", help="write the table into the README")
    arguments = parser.parse_args()
    if arguments.verb == "add":
        write_record(arguments.name, arguments.run, arguments.scores, arguments.note)
    render()


def write_record(name: str, run: Path, scores: Path, note: str) -> None:
    """Put together what is known about one result."""
    manifest = json.loads((run / "manifest.json").read_text("utf-8"))
    history = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    manifest["machine"].pop("platform")
    evaluation = json.loads((scores / "scores.json").read_text("utf-8"))
    record = {
        "note": note,
        "run": {key: value for key, value in manifest.items() if key not in _DROPPED},
        "network": manifest["network"]["name"],
        "num_validation_cases": len(manifest["val_cases"]),
        "steps": history[-1]["step"],
        "seconds": history[-1]["elapsed_s"],
        "model_mb": round((run / "model.lamina").stat().st_size / 1e6, 2),
        "mean_foreground": evaluation["mean_foreground"],
        "summary": evaluation["summary"],
    }
    RECORDS.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    (RECORDS / f"{name}.json").write_text(text, "utf-8")


def render() -> None:
    """Replace what stands between the README's markers."""
    records = [json.loads(path.read_text("utf-8")) for path in sorted(RECORDS.glob("*.json"))]
    lines = [
        "| data | network | validation scans | training | Dice | per structure | HD95 | model |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(record) for record in records),
    ]
    notes = [f"- {record['run']['dataset']['name']}: {record['note']}" for record in records]
    readme = ROOT / "README.md"
    text = readme.read_text("utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    middle = "\n".join(["", *lines, "", *notes, ""])
    readme.write_text(f"{head}{BEGIN}\n{middle}\n{END}{tail}", "utf-8")


def _row(record: dict[str, Any]) -> str:
    mean, summary, machine = record["mean_foreground"], record["summary"], record["run"]["machine"]
    structures = ", ".join(f"{name} {of['dice']['mean']:.3f}" for name, of in summary.items())
    cores = machine["cores"]
    device = machine["gpu"] or f"{cores} CPU core{'s' if cores > 1 else ''}"
    training = f"{record['seconds'] / 60:.0f} min, {record['steps']:,} steps, {device}"
    hd95 = f"{mean['hd95']:.2f} mm" if mean.get("hd95") is not None else "-"
    cells = [
        record["run"]["dataset"]["name"],
        record["network"],
        str(record["num_validation_cases"]),
        training,
        f"**{mean['dice']:.3f}**",
        structures,
        hd95,
        f"{record['model_mb']:.1f} MB",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
