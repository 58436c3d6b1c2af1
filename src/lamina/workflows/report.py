"""Report: one page about a training run or an evaluation, and tables and charts for a paper."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.bundle import Bundle, load_bundle
from lamina.config import resolve
from lamina.data.case import Case
from lamina.data.fingerprint import Fingerprint
from lamina.errors import DatasetError, LaminaError
from lamina.evaluation.comparison import MM3_PER_ML
from lamina.evaluation.records import read_scores
from lamina.evaluation.scores import Scores
from lamina.files import read_json, sha256, write_text
from lamina.geometry import check_same_grid
from lamina.io import read_volume
from lamina.labels import IGNORE_INDEX
from lamina.report.cases import Pair, ranked
from lamina.report.facts import cost_facts, data_facts, plan_rows, record_facts
from lamina.report.results import Results, save_pdf, save_report
from lamina.report.tables import latex_table, markdown_table
from lamina.volume import Volume
from lamina.workflows import Progress, no_progress
from lamina.workflows.cross_validation import predict_fold
from lamina.workflows.evaluate import ReadPair, evaluate, paired
from lamina.workflows.load import find_bundle
from lamina.workflows.record import read_record
from lamina.workflows.run import RunFolder, read_history
from lamina.workflows.train import ALL
from lamina.workflows.work import WorkFolder

log = logging.getLogger(__name__)

_SCORES = "scores.json"
_OUT_OF_FOLD = "out_of_fold"
_VALIDATION = "validation"
"""Where a run's validation scans are segmented and scored for its report."""

_LISTED = 6

Sizes = dict[str, dict[str, tuple[float, float]]]


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
            "page": str(self.page),
            "others": [str(path) for path in self.others],
            "num_cases": len(self.scores.cases),
            "mean_foreground": {
                metric.name: self.scores.mean_foreground(metric.name)
                for metric in self.scores.measures
            },
        }


def report(
    place: Path,
    out: Path | None = None,
    *,
    scores: Path | None = None,
    markdown: Path | None = None,
    latex: Path | None = None,
    pdf: Path | None = None,
    progress: Progress = no_progress,
) -> Report:
    """Write one page that says how good a network is, shows its cases, and tells where it is from.

    A run is shown with its plan, training and cost, and with the scores of its validation scans,
    which are segmented into ``validation`` within it unless that is done already. What cannot be
    read any more, such as scans that were moved, is left out with a warning.

    Args:
        place: A run folder, that of all folds, or a folder that ``evaluate`` wrote.
        out: The page; ``report.html`` in ``place`` by default.
        scores: Of a run: folder that ``evaluate`` wrote, to show instead of its validation.
        markdown: File for the table of scores.
        latex: File for the table of scores.
        pdf: File for the charts.
        progress: Told of scans that are segmented, scored and drawn.

    Raises:
        DatasetError: ``place`` is neither.
        FileError: A record is damaged, or a file cannot be written.
    """
    run = RunFolder(place) if RunFolder(place).manifest_file.is_file() else None
    folder = scores or (place if run is None else _validated(run, progress))
    found = _read_scores(folder, run)
    results = _results(found, folder, run, progress)
    page = out or place / "report.html"
    save_report(page, results)
    if markdown:
        write_text(markdown, markdown_table(found))
    if latex:
        write_text(latex, latex_table(found))
    if pdf:
        save_pdf(pdf, results)
    others = tuple(path for path in (markdown, latex, pdf) if path)
    return Report(page=page, others=others, scores=found)


def _validated(run: RunFolder, progress: Progress) -> Path:
    """Return the folder with a run's own segmentations and scores, made where they are missing."""
    manifest = run.manifest()
    if manifest["fold"] == ALL:
        return run.root / _OUT_OF_FOLD
    folder = run.root / _VALIDATION
    find_bundle(run.root)
    before = _stamp(folder)
    predict_fold(run, tuple(case.case_id for case in run.cases("val")), folder, progress)
    if not (folder / _SCORES).is_file() or _stamp(folder) != before:
        evaluate(folder, out=folder, progress=progress)
    return folder


def _stamp(folder: Path) -> list[str]:
    return [entry["sha256"] for entry in read_record(folder)["cases"]]


def _read_scores(folder: Path, run: RunFolder | None) -> Scores:
    if not (folder / _SCORES).is_file():
        what = "no run and no evaluation" if run is None else "no evaluation"
        raise DatasetError(
            f"{folder}: holds {what}.",
            remedy="Give a folder that lamina train wrote, or lamina evaluate with --out.",
        )
    found = read_scores(folder / _SCORES)
    return found if found.predictions else replace(found, predictions=str(folder.resolve()))


def _results(scores: Scores, folder: Path, run: RunFolder | None, progress: Progress) -> Results:
    pairs = _pairs(scores)
    record = run.manifest() if run else {}
    bundle = load_bundle(find_bundle(run.root)) if run else None
    about = _about_run(run, record, bundle) if run and bundle else {}
    where = {"Scores": str(folder), "Segmentations": scores.predictions}
    if scores.references:
        where["References"] = scores.references
    return Results(
        title=_title(run, bundle) if run and bundle else folder.resolve().name,
        subtitle=_subtitle(scores, folder, run, record),
        scores=scores,
        read_pairs=lambda: _shown(pairs, scores, progress),
        sizes=_sizes(pairs, scores, progress),
        provenance=record_facts(record) | where,
        **about,
    )


def _title(run: RunFolder, bundle: Bundle) -> str:
    data = bundle.provenance.get("dataset", {}).get("name", "")
    return f"{bundle.network['name']} on {data}" if data else run.root.resolve().name


def _subtitle(
    scores: Scores, folder: Path, run: RunFolder | None, record: Mapping[str, Any]
) -> str:
    """Say which scans were scored, and for what."""
    own = run is not None and folder.parent == run.root
    if own and record["fold"] == ALL:
        scans = "every scan by the model that has not seen it"
    elif own:
        scans = f"the validation scans of fold {record['fold']}"
    else:
        scans = f"the scans in {Path(scores.predictions).name}"
    names = scores.labels.foreground
    more = [f"{len(names) - _LISTED} more"] * (len(names) > _LISTED)
    return f"{', '.join([*names[:_LISTED], *more])} · {scans}"


def _pairs(scores: Scores) -> Mapping[str, ReadPair]:
    """Return what reads the cases again; nothing where they are gone."""
    references = Path(scores.references) if scores.references else None
    try:
        return paired(Path(scores.predictions), references, scores.labels)[0]
    except LaminaError as error:
        log.warning("No case is shown: %s", error)
        return {}


def _read(pair: ReadPair) -> tuple[Volume, NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a case's reference as a volume, then both maps with the unknown as background."""
    found, wanted = pair()
    unknown = wanted.array == IGNORE_INDEX
    reference, predicted = (np.where(unknown, 0, v.array).astype(np.uint8) for v in (wanted, found))
    return wanted, reference, predicted


def _sizes(pairs: Mapping[str, ReadPair], scores: Scores, progress: Progress) -> Sizes:
    """Measure every structure of every case, in ml or pixels."""
    sizes: Sizes = {name: {} for name in scores.labels.foreground}
    for done, case in enumerate(scores.cases, start=1):
        if case not in pairs:
            continue
        try:
            volume, *maps = _read(pairs[case])
        except LaminaError as error:
            log.warning("%s is not measured: %s", case, error)
            continue
        unit = 1.0 if scores.unit == "px" else float(np.prod(volume.spacing)) / MM3_PER_ML
        counts = [np.bincount(each.ravel(), minlength=256) for each in maps]
        for index, name in enumerate(sizes, start=1):
            true, found = (float(count[index]) * unit for count in counts)
            if true or found:
                sizes[name][case] = true, found
        progress(done, len(scores.cases), "Measuring")
    return sizes


def _shown(pairs: Mapping[str, ReadPair], scores: Scores, progress: Progress) -> Iterator[Pair]:
    chosen = {rank: case for rank, case in ranked(scores).items() if case in pairs}
    entries = {e["case_id"]: e for e in read_record(_folder(scores))["cases"]}
    for done, (rank, case) in enumerate(chosen.items()):
        progress(done, len(chosen), f"Drawing {case}")
        try:
            wanted, reference, predicted = _read(pairs[case])
        except LaminaError as error:
            log.warning("%s is not shown: %s", case, error)
            continue
        yield Pair(
            case_id=case,
            rank=rank,
            reference=reference,
            predicted=predicted,
            affine=wanted.affine,
            image=_image(entries.get(case, {}), wanted),
        )


def _folder(scores: Scores) -> Path:
    path = Path(scores.predictions)
    return path if path.is_dir() else path.parent


def _image(entry: Mapping[str, Any], wanted: Volume) -> Volume | None:
    """Read the scan of a case where the record says where it is, and it is still there."""
    if not entry:
        return None
    case = Case(case_id=entry["case_id"], group="", images=(Path(entry["image"]),))
    if entry.get("case"):
        case = Case.from_dict(entry["case"])
    try:
        image = case.sized(read_volume(case.images[0], case.series))
        names = f"{image.source} and {wanted.source}"
        check_same_grid(
            image.affine, image.spatial_shape, wanted.affine, wanted.spatial_shape, names
        )
    except LaminaError as error:
        log.warning("%s is shown without its scan: %s", case.case_id, error)
        return None
    return image


def _about_run(run: RunFolder, record: Mapping[str, Any], bundle: Bundle) -> dict[str, Any]:
    """Return what only a run can tell: training, data, plan, cost."""
    runs = [run]
    if record["fold"] == ALL:
        runs = [RunFolder(run.root / f"fold_{fold}") for fold in sorted(record["trained"], key=int)]
    return {
        "histories": {each.root.name: read_history(each) for each in runs},
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
    folder = run.root / (_OUT_OF_FOLD if record["fold"] == ALL else _VALIDATION)
    if times := [entry["seconds"] for entry in read_record(folder)["cases"]]:
        facts["Time to segment a scan"] = f"median {median(times):.3g} s"
    return facts
