"""Cross-validate: train every fold, score each case by the model that never saw it, and join them.

The folder holds a run per fold, ``out_of_fold`` with scores, and the ensemble, ``model.lamina``.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lamina.bundle import save_bundle
from lamina.config import resolve
from lamina.errors import LaminaError, TrainingError, first_line
from lamina.evaluation.scores import Scores
from lamina.files import check_folder, locked, write_json
from lamina.folders.all_folds import AllFolds, folds_of
from lamina.folders.work import WorkFolder
from lamina.signals import ENDING
from lamina.training.callbacks import EpochReport
from lamina.training.config import TrainConfig
from lamina.training.meters import OnStep, no_step
from lamina.training.processes import require_one_process
from lamina.training.stopping import BY_FILE, STOP_FILE
from lamina.workflows import Progress, no_progress
from lamina.workflows.cross_validation import record
from lamina.workflows.cross_validation.ensembles import ensemble, metrics_of
from lamina.workflows.cross_validation.postprocessing import Choice, choose_postprocessing
from lamina.workflows.evaluate import evaluate
from lamina.workflows.own_scans import predict_validation
from lamina.workflows.train import Training, train

log = logging.getLogger(__name__)


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

    @property
    def all_failures(self) -> dict[str, str]:
        """Folds that could not be trained and cases that could not be scored, each with why."""
        return {**self.failures, **(self.scores.failures if self.scores else {})}

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "out": str(self.run),
            "bundle": str(self.bundle) if self.bundle else None,
            "best_dice": {str(fold): dice for fold, dice in self.best_dice.items()},
            "failures": self.all_failures,
            "stopped_because": self.stopped_because,
            "out_of_fold": self.scores.as_dict() if self.scores else None,
            "postprocessing": self.postprocessing.as_dict(),
        }


def cross_validate(
    work: str | Path,
    out: str | Path,
    settings: Mapping[str, Any] | None = None,
    *,
    resume: bool = False,
    start: str | Path | None = None,
    on_epoch: Callable[[EpochReport], None] = lambda report: None,
    on_step: OnStep = no_step,
    progress: Progress = no_progress,
) -> CrossValidation:
    """Train all folds, one after the other, and make one model of them.

    A fold that fails is listed with its reason and the others go on. A file ``stop`` in ``out``
    ends the fold in hand, with a usable model, and no other begins; one in a fold's folder ends
    that fold alone.

    Args:
        work: Folder that ``prepare`` wrote.
        out: Folder to write; must not hold anything unless ``resume``.
        settings: As for :func:`~lamina.workflows.train.train`; its lengths are those of one fold.
        resume: Go on where the work in ``out`` was stopped, with its own settings; only lengths may
            be changed by ``settings``.
        start: As for :func:`~lamina.workflows.train.train`.
        on_epoch: Called after each epoch.
        on_step: Called after each step with step, progress 0..1 over all folds, loss and ``None``.
        progress: Told of windows and scans when training is over.

    Raises:
        ConfigError: As for ``train``; or several processes.
        TrainingError: ``out`` holds other files or nothing to resume, or what it was trained on has
            changed; or no fold could be trained.
        DatasetError, FileError: ``work`` is not prepared, has one fold only, or validates a case
            twice; or another process is at work in ``out``.
    """
    require_one_process(resolve(TrainConfig, settings or {}), "--fold all")
    folder, out = WorkFolder(Path(work)), Path(out)
    folds = folds_of(folder)
    enter = record.resume if resume else record.begin
    check_folder(out)
    with locked(out):
        ours = enter(folder, out, folds, settings or {}, Path(start) if start else None)
        failures, why = _train_folds(ours, on_epoch, on_step)
        if why:
            return CrossValidation(run=out, best_dice=ours.best_dice, stopped_because=why)
        if not ours.best_dice:
            raise next(iter(failures.values()))
        joint = _join(ours, progress)
    told = {name: str(problem) for name, problem in failures.items()}
    return replace(joint, failures=told)


def _train_folds(
    ours: AllFolds,
    on_epoch: Callable[[EpochReport], None],
    on_step: OnStep,
) -> tuple[dict[str, LaminaError], str]:
    """Train what is not trained yet; return what failed, and what stopped all, if anything."""
    failures: dict[str, LaminaError] = {}
    stop = ours.whole.root / STOP_FILE
    stop.unlink(missing_ok=True)
    for fold in range(len(ours.folds)):
        if fold in ours.best_dice:
            continue
        try:
            result = _train_fold(ours, fold, on_epoch, on_step)
        except LaminaError as problem:
            log.warning("Fold %d failed: %s", fold, problem)
            failures[ours.run(fold).root.name] = problem
        else:
            why = result.stopped_because
            if why in ENDING:
                return failures, why
            if not (why == BY_FILE and stop.exists()):  # --resume goes on with it
                ours.note(fold, result.best_dice)
        if stop.exists():
            stop.unlink()
            return failures, BY_FILE
    return failures, ""


def _join(ours: AllFolds, progress: Progress) -> CrossValidation:
    """Segment and score every case out of fold, choose postprocessing, write the ensemble."""
    out, trained = ours.whole.out_of_fold, ours.best_dice
    for fold in trained:
        predict_validation(ours.run(fold), out, progress)
    fold_of = {case: number for number, fold in enumerate(ours.folds) for case in fold.val}
    lost = [case for case, fold in fold_of.items() if fold not in trained]
    scores = evaluate(out, out=out, progress=progress)
    ours_alone = tuple(row for row in scores.rows if row.case not in lost)  # none of earlier models
    scores = replace(scores, rows=ours_alone, not_predicted=(*scores.not_predicted, *lost))
    scores.write(out)
    choice = choose_postprocessing(out, {case: fold_of[case] for case in scores.cases}, progress)
    write_json(out / "postprocessing.json", choice.as_dict())
    told = f"out-of-fold segmentations of {len(scores.cases)} cases, each by one member"
    metrics = metrics_of(scores, told + ours.seen_beforehand)
    if choice.steps:
        metrics |= {"dice_postprocessed": choice.dice}
    save_bundle(ensemble(ours.runs, metrics, choice.steps), ours.whole.bundle_file)
    return CrossValidation(
        run=ours.whole.root,
        best_dice=trained,
        bundle=ours.whole.bundle_file,
        scores=scores,
        postprocessing=choice,
    )


def _train_fold(
    ours: AllFolds,
    fold: int,
    on_epoch: Callable[[EpochReport], None],
    on_step: OnStep,
) -> Training:
    """Train one fold, or go on with it; whatever goes wrong becomes an error of ours."""
    run, count = ours.run(fold), len(ours.folds)
    begun = run.manifest_file.is_file()

    def heard(step: int, done: float, loss: float, _: float | None) -> None:
        on_step(step, (fold + done) / count, loss, None)
        if (ours.whole.root / STOP_FILE).exists():
            (run.root / STOP_FILE).touch()

    try:
        return train(
            ours.work.root,
            run.root,
            ours.record["settings"],
            fold=fold,
            resume=begun,
            start=None if begun else ours.start,
            on_epoch=on_epoch,
            on_step=heard,
        )
    except (MemoryError, RuntimeError) as problem:
        log.debug("%s", run.root, exc_info=True)
        reason = first_line(problem)
        raise TrainingError(f"{run.root}: cannot be trained on this machine: {reason}") from problem
    finally:
        (run.root / STOP_FILE).unlink(missing_ok=True)  # one that came with the last step
