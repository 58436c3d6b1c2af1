"""One training of a study's row: begun or gone on with, then scored, then read back."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from lamina.bundle import load_bundle
from lamina.data.cache import open_cases
from lamina.evaluation.metrics import METRICS
from lamina.files import read_json, sha256, write_json
from lamina.folders.evaluation import SCORES, patients_of, read_evaluation
from lamina.folders.prediction import read_record
from lamina.folders.run import RunFolder
from lamina.folders.work import WorkFolder
from lamina.signals import ENDING
from lamina.study.schema import CHANNELS, Study
from lamina.study.scored import Scored
from lamina.workflows.evaluate import evaluate
from lamina.workflows.own_scans import device_of
from lamina.workflows.predict import predict
from lamina.workflows.study.unseen import unseen_cases
from lamina.workflows.train import finish_run

_CHANNELS_FILE = "channels.json"
_AS_PAPER = "as_the_paper"
"""Folder, beside our scores, of those by the paper's own way to measure."""


@dataclass(frozen=True, kw_only=True)
class StudyRun:
    """One training of one row."""

    row: str
    seed: int
    fold: int
    settings: Mapping[str, Any]
    out: Path
    """Folder of the study."""

    @property
    def name(self) -> str:
        """Of its folders."""
        return f"{self.row}_seed={self.seed}_fold={self.fold}"

    @property
    def run(self) -> RunFolder:
        """Where it is trained."""
        return RunFolder(self.out / "runs" / self.name)

    @property
    def scores(self) -> Path:
        """Where its segmentations and scores are."""
        return self.out / "scores" / self.name

    @property
    def state(self) -> str:
        """``"finished"``, ``"begun"`` or ``"to do"``; a failed run is to do again."""
        if not self.run.manifest_file.is_file():
            return "to do"
        outcome = self.run.manifest().get("outcome", {})
        ended = outcome.get("state") in ("finished", "stopped") and outcome["why"] not in ENDING
        return "finished" if ended and self.run.bundle_file.is_file() else "begun"

    @property
    def granted_s(self) -> float:
        """Seconds that it was given, once finished, or that it took where it was given none."""
        manifest = self.run.manifest()
        return float(manifest["config"]["time_budget_s"] or manifest["outcome"]["seconds"])

    @property
    def is_scored(self) -> bool:
        """Whether there are scores, of the very model that was trained."""
        if not (self.state == "finished" and (self.scores / SCORES).is_file()):
            return False
        same: bool = read_record(self.scores)["model"]["sha256"] == sha256(self.run.bundle_file)
        return same


def train_and_score(
    study: Study, work: Path, run: StudyRun, unseen: Path | None, **listeners: Any
) -> None:
    """Finish a run unless it is, and score its model.

    Args:
        study: Which columns there are.
        work: Folder that ``prepare`` wrote.
        run: What to train.
        unseen: Prepared dataset to score instead of the run's own scans.
        **listeners: As for :func:`~lamina.train`.

    Raises:
        KeyboardInterrupt: It was told to stop.
        LaminaError: It cannot be trained, or not scored.
    """
    if run.state != "finished":
        finish_run(work, run.run.root, run.settings, run.fold, **listeners)
    (run.scores / SCORES).unlink(missing_ok=True)  # written last, it says that all is there
    asked = {column.metric for column in study.columns if column.is_scored}
    if CHANNELS in asked:
        write_json(run.scores.parent / f"{run.name}.{_CHANNELS_FILE}", _channels(work, run))
    ours = [name for name in METRICS if name in asked]
    theirs = sorted(asked - {*METRICS, CHANNELS})
    cases = unseen_cases(work, unseen) if unseen else ()
    side = None if cases else side_of(study, WorkFolder(work), run.fold)
    predict(
        run.run.root,
        out=run.scores,
        split=side,
        cases=cases,
        device=device_of(run.settings),
        resample_oblique=True,  # a scan that was not to be was not prepared
        resume=True,
    )
    if theirs:
        out = run.scores / _AS_PAPER
        evaluate(run.scores, out=out, metrics=theirs, protocol=study.protocol)
    evaluate(run.scores, out=run.scores, metrics=ours or ["dice"])


def side_of(study: Study, folder: WorkFolder, fold: int) -> str:
    """Return which scans are scored: those kept for the end, where there are any."""
    return "test" if study.side != "val" and folder.fold(fold).test else "val"


def read_scored(run: StudyRun, numbers: Mapping[str, str]) -> Scored:
    """Read the scores of a run.

    Args:
        run: It is scored.
        numbers: Case -> what the paper calls it, where that is another name.
    """
    found = read_evaluation(run.scores)
    values = dict(found.values)
    if (run.scores / _AS_PAPER).is_dir():
        values |= read_evaluation(run.scores / _AS_PAPER).values
    patients = patients_of(found.cases, found.patients)
    file = run.scores.parent / f"{run.name}.{_CHANNELS_FILE}"
    if file.is_file():
        content = read_json(file)
        values[CHANNELS] = {case: {"": share} for case, share in content["shares"].items()}
        patients |= content["patients"]
    return Scored(
        seed=run.seed,
        structures=tuple(found.scores.labels.regions or found.scores.labels.values),
        values={
            name: {numbers.get(case, case): row for case, row in by_case.items()}
            for name, by_case in values.items()
        },
        patients={numbers.get(case, case): patient for case, patient in patients.items()},
        failed=len(found.scores.failures) + len(found.scores.not_predicted),
    )


def _channels(work: Path, run: StudyRun) -> dict[str, Any]:
    """Return how many of its channels the network uses on each validation scan."""
    from lamina.bundle.model import build_network
    from lamina.inference.backend import TorchNetwork
    from lamina.inference.predictor import segment_prepared
    from lamina.study.redundancy import watched

    folder, bundle = WorkFolder(work), load_bundle(run.run.bundle_file)
    network = build_network(bundle)
    maps = bundle.config.attention_maps > 0
    patients = {case.case_id: case.group for case in folder.cohort().cases}
    shares = {}
    for case in open_cases(folder.cache, folder.fold(run.fold).val, maps):
        with watched(network) as found:
            segment_prepared(TorchNetwork(network), case.read(), bundle.plan)
        if found:
            shares[case.case_id] = fmean(found)
    return {"shares": shares, "patients": {case: patients[case] for case in shares}}
