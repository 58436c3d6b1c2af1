"""Cross-validate: train every fold, score each case by the model that never saw it, and join them.

The folder holds a run per fold, ``out_of_fold`` with scores, and the ensemble, ``model.lamina``.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lamina.bundle import save_bundle
from lamina.config import layered, resolve
from lamina.data.folds import Fold, read_folds
from lamina.errors import ConfigError, DatasetError, LaminaError, TrainingError
from lamina.evaluation.scores import Scores
from lamina.files import sha256, write_json
from lamina.training.callbacks import EpochReport
from lamina.training.config import TrainConfig
from lamina.training.processes import require_one_process
from lamina.workflows import Progress, no_progress
from lamina.workflows.assembly import completed, loss_of, network_of
from lamina.workflows.ensembles import cook_soup, ensemble, metrics_of
from lamina.workflows.evaluate import evaluate
from lamina.workflows.postprocessing import Choice, choose_postprocessing
from lamina.workflows.predict import predict
from lamina.workflows.record import read_record
from lamina.workflows.run import RunFolder, hashes, machine, software
from lamina.workflows.train import ALL, LENGTH, Training, train
from lamina.workflows.work import WorkFolder

log = logging.getLogger(__name__)

_SIGNALS = ("SIGINT", "SIGTERM")


@dataclass(frozen=True, kw_only=True)
class CrossValidation:
    """What all folds reached."""

    run: Path
    best_dice: Mapping[int, float]
    """Fold -> mean Dice of its best epoch, as in :class:`~lamina.workflows.train.Training`."""
    failures: Mapping[str, str] = field(default_factory=dict)
    """Folder of a fold -> why it could not be trained."""
    stopped_because: str = ""
    """Empty when all folds had their turn; otherwise there is nothing below yet."""
    bundle: Path | None = None
    scores: Scores | None = None
    """Of the out-of-fold segmentations, before any postprocessing."""
    postprocessing: Choice = field(default_factory=Choice)
    soup: Mapping[str, Any] | None = None
    """What :func:`~lamina.workflows.ensembles.cook_soup` told, where it was asked for."""

    @property
    def all_failures(self) -> dict[str, str]:
        """Folds that could not be trained and cases that could not be scored, each with why."""
        return {**self.failures, **(self.scores.failures if self.scores else {})}

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "run": str(self.run),
            "bundle": str(self.bundle) if self.bundle else None,
            "best_dice": {str(fold): dice for fold, dice in self.best_dice.items()},
            "failures": dict(self.failures),
            "stopped_because": self.stopped_because,
            "out_of_fold": self.scores.as_dict() if self.scores else None,
            "postprocessing": self.postprocessing.as_dict(),
            "soup": self.soup,
        }


def cross_validate(
    work: Path,
    out: Path,
    settings: Mapping[str, Any] | None = None,
    *,
    resume: bool = False,
    start: Path | None = None,
    soup: bool = False,
    on_epoch: Callable[[EpochReport], None] = lambda report: None,
    on_step: Callable[[int, float, float, float | None], None] = lambda *_: None,
    progress: Progress = no_progress,
) -> CrossValidation:
    """Train all folds, one after the other, and make one model of them.

    A fold that fails is listed with its reason and the others go on.

    Args:
        work: Folder that ``prepare`` wrote.
        out: Folder to write; must not hold anything unless ``resume``.
        settings: As for :func:`~lamina.workflows.train.train`; its lengths are those of one fold.
        resume: Go on where the work in ``out`` was stopped, with its own settings; only lengths may
            be changed by ``settings``.
        start: As for :func:`~lamina.workflows.train.train`.
        soup: Also average the weights of all folds, and keep the result if it is as good as the
            ensemble on the scans that are kept for the end.
        on_epoch: Called after each epoch.
        on_step: Called after each step with step, progress 0..1 over all folds, loss and ``None``.
        progress: Told of windows and scans when training is over.

    Raises:
        ConfigError: As for ``train``; or several processes, or a soup that no scan can measure.
        TrainingError: ``out`` holds other files or nothing to resume, or what it was trained on has
            changed; or no fold could be trained.
        DatasetError, FileError: ``work`` is not prepared, has one fold only, or validates a case
            twice.
    """
    require_one_process(resolve(TrainConfig, settings or {}), "--fold all")
    folder, whole = WorkFolder(work), RunFolder(out)
    folds = _folds(folder)
    if soup and not _kept(folds):
        raise ConfigError(
            "soup: cannot be measured: every scan was seen by one of the folds.",
            remedy="Prepare the dataset with a test side, or use the ensemble alone.",
        )
    record = (
        _resumed(whole, folder, settings or {})
        if resume
        else _begun(whole, folder, folds, settings or {}, start)
    )
    failures: dict[str, LaminaError] = {}
    for fold in range(len(folds)):
        if str(fold) in record["trained"]:
            continue
        try:
            result = _train_fold(folder, whole, record, fold, on_epoch, on_step)
        except LaminaError as problem:
            log.warning("Fold %d failed: %s", fold, problem)
            failures[f"fold_{fold}"] = problem
            continue
        if (why := result.stopped_because) in _SIGNALS:
            return CrossValidation(run=out, best_dice=_best(record), stopped_because=why)
        record["trained"][str(fold)] = result.best_dice
        write_json(whole.manifest_file, record)
    if not record["trained"]:
        raise next(iter(failures.values()))
    joint = _join(whole, folds, record, progress)
    runs = [_fold_run(whole, fold) for fold in joint.best_dice]
    cooked = cook_soup(whole, runs, progress) if soup else None
    return replace(joint, failures={name: str(why) for name, why in failures.items()}, soup=cooked)


def _join(
    whole: RunFolder, folds: tuple[Fold, ...], record: Mapping[str, Any], progress: Progress
) -> CrossValidation:
    """Segment and score every case out of fold, choose postprocessing, write the ensemble."""
    out, trained = whole.root / "out_of_fold", _best(record)
    for fold in trained:
        predict_fold(_fold_run(whole, fold), folds[fold].val, out, progress)
    scores = evaluate(out, out=out, progress=progress)
    lost = [case for fold in range(len(folds)) if fold not in trained for case in folds[fold].val]
    scores = replace(scores, not_predicted=(*scores.not_predicted, *lost))
    scores.write(out)
    fold_of = {case: fold for fold in trained for case in folds[fold].val}
    choice = choose_postprocessing(out, {case: fold_of[case] for case in scores.cases}, progress)
    write_json(out / "postprocessing.json", choice.as_dict())
    told = f"out-of-fold segmentations of {len(scores.cases)} cases, each by one member"
    metrics = metrics_of(scores, told)
    if choice.steps:
        metrics |= {"dice_postprocessed": choice.dice}
    runs = [_fold_run(whole, fold) for fold in trained]
    save_bundle(ensemble(runs, metrics, choice.steps), whole.bundle_file)
    return CrossValidation(
        run=whole.root,
        best_dice=trained,
        bundle=whole.bundle_file,
        scores=scores,
        postprocessing=choice,
    )


def _train_fold(
    folder: WorkFolder,
    whole: RunFolder,
    record: Mapping[str, Any],
    fold: int,
    on_epoch: Callable[[EpochReport], None],
    on_step: Callable[[int, float, float, float | None], None],
) -> Training:
    """Train one fold, or go on with it; whatever goes wrong becomes an error of ours."""
    run, count = _fold_run(whole, fold), record["num_folds"]
    try:
        return train(
            folder.root,
            run.root,
            record["settings"],
            fold=fold,
            resume=run.manifest_file.is_file(),
            start=Path(record["start"]) if record["start"] else None,
            on_epoch=on_epoch,
            on_step=lambda step, done, loss, _: on_step(step, (fold + done) / count, loss, None),
        )
    except (MemoryError, RuntimeError) as problem:
        log.debug("%s", run.root, exc_info=True)
        reason = str(problem).partition("\n")[0] or "out of memory"
        raise TrainingError(f"{run.root}: cannot be trained on this machine: {reason}") from problem


def predict_fold(run: RunFolder, cases: tuple[str, ...], out: Path, progress: Progress) -> None:
    """Segment the scans a fold was validated on, unless this very model has done so already."""
    model = sha256(run.bundle_file)
    entries = read_record(out)["cases"]
    ours = {e["case_id"]: e for e in entries if e.get("model") == model and e["segmentation"]}
    files = {case: out / e["segmentation"] for case, e in ours.items()}
    whole = {c for c, file in files.items() if file.is_file() and sha256(file) == ours[c]["sha256"]}
    if not whole >= set(cases):
        predict(run.root, out, split="val", beside_others=True, progress=progress)


def _folds(folder: WorkFolder) -> tuple[Fold, ...]:
    folder.plan()  # says what is missing where nothing was prepared
    folds = read_folds(folder.splits_file)
    times = Counter(case for fold in folds for case in fold.val)
    twice = sorted(case for case, count in times.items() if count > 1)
    if len(folds) < 2 or twice:
        fault = f"{twice[0]} is validated in several" if twice else "there is only one"
        raise DatasetError(
            f"--fold all: {folder.splits_file}: {fault}.",
            remedy="Train with --fold 0 and so on, or prepare with other splits.",
        )
    return folds


def _kept(folds: tuple[Fold, ...]) -> set[str]:
    """Return the cases that every fold keeps for the end."""
    seen = {case for fold in folds for case in (*fold.train, *fold.val)}
    return set.intersection(*(set(fold.test) for fold in folds)) - seen


def _begun(
    whole: RunFolder,
    folder: WorkFolder,
    folds: tuple[Fold, ...],
    settings: Mapping[str, Any],
    start: Path | None,
) -> dict[str, Any]:
    """Write and return the record of new work."""
    if whole.root.is_dir() and any(p for p in whole.root.iterdir() if p.name[:1] != "."):
        raise TrainingError(
            f"{whole.root}: already holds a run, or other files.",
            remedy="Add --resume, or choose another --out.",
        )
    plan = folder.plan()
    config = completed(resolve(TrainConfig, settings), plan)
    for make in (network_of, loss_of):  # what is wrong with them is so in every fold
        make(config, plan)
    kept, cohort = _kept(folds), folder.cohort()
    record = {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "software": software(),
        "machine": machine(),
        "hashes": _hashes(folder),
        "fold": ALL,
        "num_folds": len(folds),
        "test_cases": [case.as_dict() for case in cohort.cases if case.case_id in kept],
        "settings": json.loads(json.dumps(settings)),
        "start": str(start.resolve()) if start else None,
        "trained": {},
    }
    write_json(whole.manifest_file, record)
    return record


def _resumed(whole: RunFolder, folder: WorkFolder, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of the work to go on with; where it is to be longer, no fold is done."""
    record = whole.manifest()
    if record["fold"] != ALL:
        raise TrainingError(f"{whole.root}: is a run of fold {record['fold']}, not of all.")
    if record["hashes"] != _hashes(folder):
        raise TrainingError(
            f"{folder.root}: was prepared or planned anew since {whole.root} was begun.",
            remedy="Start again, into another --out.",
        )
    then, given = record["settings"], json.loads(json.dumps(settings))
    changed = [n for n in given if n not in LENGTH and given[n] != then.get(n)]
    if changed:
        raise TrainingError(
            f"{whole.root}: {', '.join(changed)} cannot change when a run is resumed.",
            remedy=f"Only {', '.join(LENGTH)} can; start another run otherwise.",
        )
    record["settings"] = layered(then, given)
    if record["settings"] != then:
        record["trained"] = {}
    write_json(whole.manifest_file, record)
    return record


def _hashes(folder: WorkFolder) -> dict[str, str]:
    return hashes({f.name: f for f in (folder.plan_file, folder.splits_file, folder.cohort_file)})


def _fold_run(whole: RunFolder, fold: int) -> RunFolder:
    return RunFolder(whole.root / f"fold_{fold}")


def _best(record: Mapping[str, Any]) -> dict[int, float]:
    """Return the best Dice of each fold that is trained, in the order of the folds."""
    return dict(sorted((int(fold), dice) for fold, dice in record["trained"].items()))
