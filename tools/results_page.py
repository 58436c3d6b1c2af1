"""Write the page of results, and the README's table, from the records in ``docs/results``.

    python tools/results_page.py

What ``tools/results.py`` measured is all that it knows.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from lamina.evaluation.statistics.intervals import FEW_TOLD, Interval, mean_interval
from lamina.evaluation.statistics.paired import holm, signed_rank
from lamina.evaluation.statistics.pairing import pair

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "docs" / "results"
PAGE = ROOT / "docs" / "results.md"
_SHORT_S = 300
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
_COLUMNS = (
    *("network", "validated on", "Dice", "IoU", "HD95", "against the first"),
    *("parameters", "GMAC", "a scan", "training", "model"),
)
_HEAD = """# Results

Networks trained by Lamina's own commands on real scans and pictures, scored in full resolution on
those that also chose the epoch. `make results` writes this page from the records in
`docs/results/`. [Benchmarks](benchmarks.md) tell what predictions take of time and memory.

Networks with little time, hippocampus, fold 0, one core, compared by `lamina compare`:
[tables and pictures](results/hippocampus_240s/compare.md). Each was trained by
`lamina train W --model NAME --fold 0 --seed N --time-budget 240s --set steps_per_epoch=100000`.
LightMedSeg, LGMSNet and DynUNet, which have several seeds, trained for the whole budget, with the
validation on top. The others, with one seed, came later, another training on the other core and
the validation within the budget: they trained for less, so that only differences among the first,
and among the others, are at equal time. Heavy networks take few steps in it. At the usual learning
rate MPU-Net diverged and SegResNet found nothing; they were given the rates of their own that are
their defaults now.

Tables of pictures and slices at equal time or steps, except where they say otherwise, were made at
0.006, the usual learning rate, for all networks. LGMSNet 2D learns better at 0.002, as the tables
of BUSI and Kvasir show; so did CMUNeXt, U-Net and DAI-Net's U-Net in short trials that are not
shown here, and UNeXt and TinyU-Net did not. 0.002 is the default now of LGMSNet 2D, CMUNeXt, U-Net
and DAI-Net.

Tables under a heading of their own hold networks that had the same time, or as many steps, on the
same prepared data: what each reaches early on one core, and no more. Below, their Dice beside the
time of a prediction; bars are the intervals, the line joins those that no other beats in both.

![Dice against seconds a scan, by dataset](results/front.png)
"""
_FOOT = f"""
*Validated on*: so many of the scans or pictures that the network was trained or validated on; of a
cross-validation all of them, each by the model of the fold that has not seen it. Training is then
that of all folds together, and the model that of one.

Dice, IoU and HD95 are means over structures, then over the scans of a patient, then over patients,
Dice with the 95 % BCa bootstrap interval of this mean, *n* being the patients; one who rightly
shows nothing has no Dice, so that networks may be averaged over different patients. A structure
that is missed or invented counts as zero, and for HD95 as the diagonal of the scan. HD95 is in
millimetres or, where pictures do not tell how large they are, in pixels (px) of the file, at
whatever size the network sees it. {FEW_TOLD}

*GMAC* are billions of multiply-accumulates for one window of the size beside them; larger scans
take several. *A scan*: predicting one of usual size on one CPU thread, from file to file, with the
program's memory.

*Against the first*: mean difference in Dice over patients, and the p value of Wilcoxon's signed
rank test, corrected after Holm within the table. Both are of patients' means: who rightly found
nothing in a patient, and so has no mean, has 1 where the other invented something; a patient of
whom neither has one is left out. `lamina compare` does so structure by structure of each scan, and
may tell another difference where there are several of either. Blank where other patients or scans
were scored. One seed and one fold each unless a note says otherwise: differences of a point may be
chance.
"""


def main() -> None:
    """Write both."""
    records = read_records()
    PAGE.write_text(page(records), "utf-8")
    readme = ROOT / "README.md"
    readme.write_text(with_table(readme.read_text("utf-8"), records), "utf-8")


def _of_patients(record: dict[str, Any], metric: str) -> Any:
    """Return the values of the patients who have one."""
    return np.array([value for value in record["per_patient"][metric] if value is not None])


def dice_of(record: dict[str, Any]) -> float:
    """Return the mean Dice over patients."""
    return float(_of_patients(record, "dice").mean())


def read_records() -> dict[str, list[dict[str, Any]]]:
    """Return records by dataset, the best first."""
    sets: dict[str, list[dict[str, Any]]] = defaultdict(list)
    found = {path.stem: json.loads(path.read_text("utf-8")) for path in RECORDS.glob("*.json")}
    for name, record in sorted(found.items()):
        beside = record.get("beside", name)
        if beside not in found:
            raise SystemExit(f"{name}: beside {beside}, which is no record.")
        of = found[beside]
        if not same_cases(of, record):
            raise SystemExit(f"{name}: its patients or scans are not those of {beside}.")
        sets[of["run"]["dataset"]["name"]].append(record)
    for records in sets.values():
        records.sort(key=dice_of, reverse=True)
    return dict(sorted(sets.items()))


def same_cases(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tell whether records are of the same patients and, where both know their scans, of these."""
    both = "cases_sha256" in one and "cases_sha256" in other
    keys = ["patients_sha256", *["cases_sha256"] * both]
    return all(one.get(key) == other.get(key) for key in keys)


def page(sets: dict[str, list[dict[str, Any]]]) -> str:
    """Return the page of all results."""
    parts = [_HEAD, *(_section(name, records) for name, records in sets.items()), _FOOT]
    return "\n".join(parts)


def _section(name: str, records: list[dict[str, Any]]) -> str:
    """Return a set's best results, then a table for each group of runs to be compared."""
    first = next(record for record in records if record["run"]["dataset"]["name"] == name)
    about = first["run"]["dataset"]
    licence, source = about.get("licence") or "unknown", about.get("source")
    what = "pictures" if first.get("spatial_dims") == 2 else "scans"
    lines = [
        f"## {name}\n",
        f"Licence of the {what}: {licence}." + (f" {source}" if source else "") + "\n",
    ]
    for group, runs in groups_of(records).items():
        lines += [f"### {group}\n"] if group else []
        lines += _table(runs)
    return "\n".join(lines)


def groups_of(records: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the records of a set by their group, those of none first, under an empty name."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in sorted(records, key=lambda record: record.get("group", "")):
        groups[record.get("group", "")].append(record)
    return dict(groups)


def _table(records: list[dict[str, Any]]) -> list[str]:
    """Return the lines of a table; a note that all its records share stands there once."""
    lines = [f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
    compared = _against_first(records)
    lines += [_row(record, text) for record, text in zip(records, compared, strict=True)]
    notes = [f"- {called(record)}: {record['note']}" for record in records]
    if len(records) > 1 and len({record["note"] for record in records}) == 1:
        notes = [f"Each: {records[0]['note']}."]
    return [*lines, "", *notes, ""]


def _against_first(records: list[dict[str, Any]]) -> list[str]:
    """Return the paired difference to the best, with its p value, where patients are the same."""
    first, told = records[0], {}
    for number, record in enumerate(records[1:], start=1):
        if same_cases(record, first):
            told[number] = _differences(record, first)
    p_values = holm([signed_rank(differences).p for differences in told.values()])
    texts = ["" if number else "–" for number in range(len(records))]
    for (number, differences), p in zip(told.items(), p_values, strict=True):
        texts[number] = f"{differences.mean():+.3f}, p {p:.2g}"
    return texts


def _differences(record: dict[str, Any], first: dict[str, Any]) -> Any:
    """Return one's Dice minus the first's, patient by patient."""
    tables = [np.array(each["per_patient"]["dice"], float) for each in (record, first)]
    found = [{str(place): {"": value} for place, value in enumerate(row)} for row in tables]
    one, other = pair(found, {place: place for place in found[0]}, best=1.0).values
    return one - other


def _row(record: dict[str, Any], compared: str) -> str:
    interval = interval_of(record)
    dice = f"**{interval.mean:.3f}**"
    dice += "" if interval.missing else f" [{interval.low:.3f}, {interval.high:.3f}]"
    dice += f", n {interval.n}"
    cells = [called(record), _validated_on(record), dice, _iou(record), _hd95(record), compared]
    cells += [*_cost(record), _prediction(record), _training(record), _size(record)]
    return f"| {' | '.join(cells)} |"


def interval_of(record: dict[str, Any]) -> Interval:
    """Return the mean Dice over patients with its interval."""
    return mean_interval(_of_patients(record, "dice"))


def called(record: dict[str, Any]) -> str:
    """Return the network and what tells the record from others of it."""
    return ", ".join([record["network"], *filter(None, [record.get("variant")])])


def _validated_on(record: dict[str, Any]) -> str:
    count = record["num_validation_cases"]
    if "num_folds" in record:
        return f"{count}, {record['num_folds']} folds"
    return f"{count} of {count + record['run']['num_training_cases']}"


def _iou(record: dict[str, Any]) -> str:
    return f"{_of_patients(record, 'iou').mean():.3f}"


def _hd95(record: dict[str, Any]) -> str:
    if "hd95" not in record["per_patient"]:
        return "–"
    return f"{_of_patients(record, 'hd95').mean():.2f} {record.get('unit', 'mm')}"


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
    seconds = record["seconds"]
    took = f"{seconds:.0f} s" if seconds < _SHORT_S else f"{seconds / 60:.0f} min"
    return f"{took}, {record['steps']:,} steps, {device}"


def _size(record: dict[str, Any]) -> str:
    return f"{record['model_mb']:.1f} MB"


def with_table(readme: str, sets: dict[str, list[dict[str, Any]]]) -> str:
    """Return the README with the best result of each dataset between its markers."""
    lines = [
        "| data | network | validated on | Dice | IoU | HD95 | training | model |",
        "|---|---|---|---|---|---|---|---|",
    ]
    alone = {name: groups_of(records).get("", []) for name, records in sets.items()}
    for name, (best, *_) in [(name, records) for name, records in alone.items() if records]:
        cells = [name, called(best), _validated_on(best)]
        cells += [f"**{dice_of(best):.3f}**", _iou(best), _hd95(best)]
        lines.append(f"| {' | '.join([*cells, _training(best), _size(best)])} |")
    head, _, rest = readme.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return "\n".join([head + BEGIN, "", *lines, "", END + tail])


if __name__ == "__main__":
    main()
