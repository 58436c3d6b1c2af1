"""The cases of an evaluation, read again to be shown in its report."""

import logging
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from shlex import join
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.data.case import Case
from lamina.errors import DatasetError, LaminaError
from lamina.evaluation.calibration import probabilities_around, reliability
from lamina.evaluation.comparison import Comparison
from lamina.evaluation.scores import Scores
from lamina.explain.quality import unit_of, voxel_size
from lamina.folders.evaluation import (
    SCORES,
    Evaluation,
    fingerprint,
    read_evaluation,
    recorded_files,
)
from lamina.folders.pairs import ReadPair, folder_of, paired
from lamina.folders.prediction import read_record
from lamina.folders.probabilities import find_probabilities, read_probabilities
from lamina.labels import IGNORE_INDEX
from lamina.report.cases import Pair, ranked
from lamina.volume import Volume
from lamina.workflows import Progress

log = logging.getLogger(__name__)

Sizes = dict[str, dict[str, tuple[float, float]]]
"""Structure -> case -> its true and its predicted size."""


def are_scored(folder: Path) -> bool:
    """Tell whether segmentations with a record have their scores beside them, as they are now.

    Raises:
        DatasetError, FileError: The record or the scores are damaged.
    """
    if not (folder / SCORES).is_file():
        return False
    found = read_evaluation(folder)
    made = recorded_files(folder).items()
    failures = found.scores.failures
    return all(found.files.get(case) == file for case, file in made if case not in failures)


def pairs_of(evaluation: Evaluation) -> Mapping[str, ReadPair]:
    """Return what reads the cases again, as they were scored; nothing where they are gone.

    Reading a case raises an error if it is another now.
    """
    scores = evaluation.scores
    references = Path(scores.references) if scores.references else None
    try:
        pairs = paired(Path(scores.predictions), references, scores.labels)[0]
    except LaminaError as error:
        log.warning("No case is shown: %s", error)
        return {}
    return {case: partial(_as_scored, case, read, evaluation) for case, read in pairs.items()}


def _as_scored(case: str, read: ReadPair, evaluation: Evaluation) -> tuple[Volume, Volume]:
    found, wanted = read()
    for volume, scored in ((found, evaluation.segmentations), (wanted, evaluation.references)):
        if case in scored and scored[case] != fingerprint(volume):
            raise DatasetError(
                f"{volume.source}: has changed since it was scored.",
                remedy=f"Score it again: {_command(evaluation)}.",
            )
    return found, wanted


def _command(evaluation: Evaluation) -> str:
    scores = evaluation.scores
    references = ("-r", scores.references) if scores.references else ()
    out = str(evaluation.path.parent)
    return join(["lamina", "evaluate", "-p", scores.predictions, *references, "-o", out])


def _read(pair: ReadPair) -> tuple[Volume, NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a case's reference as a volume, then both maps with the unknown as background."""
    found, wanted = pair()
    unknown = wanted.array == IGNORE_INDEX
    reference, predicted = (np.where(unknown, 0, v.array).astype(np.uint8) for v in (wanted, found))
    return wanted, reference, predicted


def sizes_of(
    pairs: Mapping[str, ReadPair], scores: Scores, progress: Progress
) -> tuple[Sizes, str]:
    """Measure every structure of every case; return the unit too: ``ml``, ``cm²`` or ``px``."""
    sizes: Sizes = {name: {} for name in scores.labels.foreground}
    unit = "ml"
    for done, case in enumerate(scores.cases, start=1):
        if case not in pairs:
            continue
        try:
            volume, *maps = _read(pairs[case])
        except LaminaError as error:
            log.warning("%s is not measured: %s", case, error)
            continue
        unit, each_voxel = unit_of(volume), voxel_size(volume)
        counts = [np.bincount(each.ravel(), minlength=256) for each in maps]
        for index, name in enumerate(sizes, start=1):
            true, found = (float(count[index]) * each_voxel for count in counts)
            if true or found:
                sizes[name][case] = true, found
        progress(done, len(scores.cases), "Measuring")
    return sizes, unit


def flags_of(scores: Scores) -> dict[str, list[str]] | None:
    """Return what ``predict`` found unusual about each case; ``None`` if it never looked."""
    entries = [e for e in read_record(_folder(scores))["cases"] if e.get("flags") is not None]
    told = {e["case_id"]: [str(flag["text"]) for flag in e["flags"]] for e in entries}
    scored = {case: told[case] for case in scores.cases if case in told}
    return {case: texts for case, texts in scored.items() if texts} if scored else None


def reliability_of(
    pairs: Mapping[str, ReadPair], scores: Scores, progress: Progress
) -> dict[str, NDArray[np.float64]]:
    """Return voxels, probabilities and frequencies of each structure, bin by bin.

    Of cases whose probabilities are still there, where calibration was measured.
    """
    folder = Path(scores.probabilities) if scores.probabilities else _folder(scores)
    known = [case for case in scores.cases if case in pairs and find_probabilities(folder, case)]
    if not any(metric.needs_probability for metric in scores.measures):
        return {}
    found: dict[str, NDArray[np.float64]] = {}
    for done, case in enumerate(known, start=1):
        try:
            predicted, wanted = pairs[case]()
            maps = read_probabilities(folder, case, scores.labels, predicted)
        except LaminaError as error:
            log.warning("%s: its probabilities are not shown: %s", case, error)
            continue
        unknown = wanted.array[0] == IGNORE_INDEX
        for index, name in enumerate(scores.labels.foreground, start=1):
            ours, theirs = ((v.array[0] == index) & ~unknown for v in (predicted, wanted))
            if ours.any() or theirs.any():
                comparison = Comparison(
                    ours,
                    theirs,
                    wanted.spacing,
                    probability=np.where(unknown, np.nan, maps[index]),
                )
                each = reliability(probabilities_around(comparison))
                found[name] = found.get(name, 0) + each
        progress(done, len(known), "Reading probabilities")
    return found


def shown(
    pairs: Mapping[str, ReadPair], scores: Scores, ct: bool | None, progress: Progress
) -> Iterator[Pair]:
    """Yield the worst, the median and the best case, as far as they can be read.

    Args:
        pairs: What reads the cases.
        scores: Theirs.
        ct: Whether they are CT; ``None`` where nobody knows.
        progress: Told of each.
    """
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
            ct=ct,
        )


def _image(entry: Mapping[str, Any], wanted: Volume) -> Volume | None:
    """Read the scan of a case where the record says where it is, and it is still there."""
    if not entry:
        return None
    case = Case(case_id=entry["case_id"], group="", images=(Path(entry["image"]),))
    if entry.get("case"):
        case = Case.from_dict(entry["case"])
    try:
        image = case.read_part(case.images[0])
        image.check_grid_of(wanted)
    except LaminaError as error:
        log.warning("%s is shown without its scan: %s", case.case_id, error)
        return None
    return image


def _folder(scores: Scores) -> Path:
    return folder_of(Path(scores.predictions))
