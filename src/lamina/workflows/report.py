"""Report: one page about a training run or an evaluation, and tables and charts for a paper."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from lamina.bundle import Bundle, load_bundle
from lamina.config import resolve
from lamina.data.fingerprint import Fingerprint
from lamina.errors import ConfigError, DatasetError, FileError, some
from lamina.evaluation.figures import shown_metrics
from lamina.evaluation.scores import Scores
from lamina.evaluation.statistics.means import intervals_of
from lamina.files import check_folder, read_json, sha256, write_text
from lamina.folders.bundle import find_bundle
from lamina.folders.evaluation import (
    SCORES,
    Evaluation,
    patients_of,
    read_evaluation,
    unrecorded_told,
)
from lamina.folders.prediction import read_record
from lamina.folders.run import ALL, RunFolder, read_history
from lamina.folders.work import WorkFolder
from lamina.report.facts import cost_facts, data_facts, plan_rows, record_facts
from lamina.report.results import Results, save_pdf, save_report
from lamina.report.slices import is_ct
from lamina.report.tables import latex_table, markdown_table
from lamina.workflows import Progress, no_progress
from lamina.workflows.evaluate import evaluate
from lamina.workflows.own_scans import predict_validation
from lamina.workflows.steps.reported_cases import (
    are_scored,
    flags_of,
    pairs_of,
    reliability_of,
    shown,
    sizes_of,
)

_VALIDATION = "validation"
"""Where a run's validation scans are segmented and scored for its report."""

_LISTED = 6


@dataclass(frozen=True, kw_only=True)
class Report:
    """What ``report`` wrote."""

    page: Path
    others: tuple[Path, ...]
    """Tables and charts that were asked for."""
    scores: Scores

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "out": str(self.page),
            "others": [str(path) for path in self.others],
            "num_cases": len(self.scores.cases),
            "mean_foreground": {
                metric.name: self.scores.mean_foreground(metric.name)
                for metric in self.scores.measures
            },
        }


def report(
    place: str | Path,
    out: str | Path | None = None,
    *,
    scores: str | Path | None = None,
    markdown: str | Path | None = None,
    latex: str | Path | None = None,
    pdf: str | Path | None = None,
    progress: Progress = no_progress,
) -> Report:
    """Write one page that says how good a network is, shows its cases, and tells where it is from.

    A run is shown with its plan, training and cost, and with the scores of its validation scans,
    which are segmented into ``validation`` within it and scored unless that is done already. What
    cannot be read any more, such as scans that were moved, or is no longer what was scored, is left
    out with a warning.

    Args:
        place: A run folder, that of all folds, or a folder that ``evaluate`` wrote.
        out: The page; ``report.html`` in ``place`` by default.
        scores: Of a run: folder that ``evaluate`` wrote, to show instead of its validation.
        markdown: File for the table of scores.
        latex: File for the table of scores.
        pdf: File for the charts.
        progress: Told of scans that are segmented, scored and drawn.

    Raises:
        ConfigError: ``scores`` without a run, or one file for two things.
        DatasetError: ``place`` is neither.
        FileError: A record is damaged, or a file cannot be written.
    """
    place = Path(place)
    scores, markdown, latex, pdf = (
        Path(file) if file else None for file in (scores, markdown, latex, pdf)
    )
    page = Path(out) if out else place / "report.html"
    _check_files(page, markdown, latex, pdf)
    run = RunFolder(place) if RunFolder(place).manifest_file.is_file() else None
    if scores and run is None:
        raise ConfigError(
            f"scores: is for a run, and {place} is none.", remedy=f"Give {scores} in its place."
        )
    folder = scores or (place if run is None else _validated(run, progress))
    found = _read(folder, run)
    results = _results(found, folder, run, progress, own=run is not None and scores is None)
    save_report(page, results)
    if markdown:
        write_text(markdown, markdown_table(results.scores, results.intervals, results.caution))
    if latex:
        write_text(latex, latex_table(results.scores, results.intervals, results.caution))
    if pdf:
        save_pdf(pdf, results)
    others = tuple(path for path in (markdown, latex, pdf) if path)
    return Report(page=page, others=others, scores=results.scores)


def _check_files(*files: Path | None) -> None:
    """Refuse what cannot be a file to write to, before there is anything to write."""
    given = [file for file in files if file]
    for file in given:
        check_folder(file.parent)
        if file.is_dir():
            raise FileError(f"{file}: is a folder.", remedy="Give the name of a file.")
    if len({file.resolve() for file in given}) < len(given):
        raise ConfigError(
            f"{', '.join(map(str, given))}: one file for two of page, tables and charts.",
            remedy="Give each a name of its own.",
        )


def _validated(run: RunFolder, progress: Progress) -> Path:
    """Return the folder with a run's own segmentations and scores, made where they are missing."""
    manifest = run.manifest()
    if manifest["fold"] == ALL:
        return run.out_of_fold
    folder = run.root / _VALIDATION
    find_bundle(run.root)
    predict_validation(run, folder, progress)
    if not are_scored(folder):
        evaluate(folder, out=folder, progress=progress)
    return folder


def _read(folder: Path, run: RunFolder | None) -> Evaluation:
    if not (folder / SCORES).is_file():
        what = "no run and no evaluation" if run is None else "no evaluation"
        raise DatasetError(
            f"{folder}: holds {what}.",
            remedy="Give a folder that lamina train wrote, or lamina evaluate with --out.",
        )
    found = read_evaluation(folder)
    if found.scores.predictions:
        return found
    return replace(found, scores=replace(found.scores, predictions=str(folder.resolve())))


def _results(
    found: Evaluation, folder: Path, run: RunFolder | None, progress: Progress, *, own: bool
) -> Results:
    scores = found.scores
    pairs = pairs_of(found)
    sizes, size_unit = sizes_of(pairs, scores, progress)
    record = run.manifest() if run else {}
    bundle = load_bundle(find_bundle(run.root)) if run else None
    about = _about_run(run, record, bundle) if run and bundle else {}
    where = {"Scores": str(folder), "Segmentations": scores.predictions}
    if scores.references:
        where["References"] = scores.references
    metrics = tuple(metric.name for metric in shown_metrics(scores))
    ct = is_ct(bundle.plan) if bundle else None
    return Results(
        title=_title(run, bundle) if run and bundle else folder.resolve().name,
        subtitle=_subtitle(scores, record if own else None),
        scores=scores,
        intervals=intervals_of(scores, patients_of(scores.cases, found.patients), metrics),
        caution=unrecorded_told(scores.cases, found.patients),
        read_pairs=lambda: shown(pairs, scores, ct, progress),
        sizes=sizes,
        size_unit=size_unit,
        flags=flags_of(scores),
        reliability=reliability_of(pairs, scores, progress),
        provenance=record_facts(record) | where,
        **about,
    )


def _title(run: RunFolder, bundle: Bundle) -> str:
    data = bundle.dataset.get("name", "")
    return f"{bundle.network['name']} on {data}" if data else run.root.resolve().name


def _subtitle(scores: Scores, record: Mapping[str, Any] | None) -> str:
    """Say which scans were scored, and for what.

    Args:
        scores: Theirs.
        record: Manifest of the run whose validation it is; ``None`` of any other evaluation.
    """
    if record is None:
        scans = f"the scans in {Path(scores.predictions).name}"
    elif record["fold"] == ALL:
        scans = "every scan by the model that has not seen it"
    else:
        scans = f"the validation scans of fold {record['fold']}"
    names = scores.labels.foreground
    return f"{some(names, _LISTED)} · {scans}"


def _about_run(run: RunFolder, record: Mapping[str, Any], bundle: Bundle) -> dict[str, Any]:
    """Return what only a run can tell: training, data, plan, cost."""
    runs = [run]
    if record["fold"] == ALL:
        runs = [run.fold(fold) for fold in sorted(record["trained"], key=int)]
    return {
        "histories": {each.root.name: read_history(each) for each in runs},
        "select_by": record.get("config", {}).get("select_by", "dice"),
        "data": _data(record),
        "plan": plan_rows(bundle.plan),
        "cost": cost_facts(bundle) | _spent(run, record),
    }


def _data(record: Mapping[str, Any]) -> dict[str, str]:
    file = WorkFolder(Path(record.get("work", ""))).fingerprint_file
    if not record.get("work") or not file.is_file():
        return {}
    return data_facts(resolve(Fingerprint, read_json(file)))


def _spent(run: RunFolder, record: Mapping[str, Any]) -> dict[str, str]:
    """Return the size of the model's file, and the time that training and prediction took."""
    size, digest = run.bundle_file.stat().st_size / 1e6, sha256(run.bundle_file)
    facts = {"Model file": f"{size:.3g} MB, SHA-256 {digest[:12]}…"}
    outcome = record.get("outcome", {})
    if "seconds" in outcome:
        facts["Training"] = f"{outcome['seconds'] / 60:.3g} min, {outcome['epochs']} epochs"
    folder = run.out_of_fold if record["fold"] == ALL else run.root / _VALIDATION
    if times := [e["seconds"] for e in read_record(folder)["cases"] if e["segmentation"]]:
        facts["Time to segment a scan"] = f"median {median(times):.3g} s"
    return facts
