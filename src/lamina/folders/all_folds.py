"""All folds of a prepared dataset: the folder with a run of each, and the record of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamina.data.folds import Fold, read_folds
from lamina.errors import DatasetError, TrainingError, repeated
from lamina.files import sha256, write_json
from lamina.folders.lineage import Foreknowledge, foreknowledge
from lamina.folders.run import RunFolder
from lamina.folders.work import WorkFolder


@dataclass(frozen=True)
class AllFolds:
    """The folds of one cross-validation; its record is the manifest of its folder."""

    work: WorkFolder
    whole: RunFolder
    """Holds the run of each fold, and all that is made of them."""
    folds: tuple[Fold, ...]
    record: dict[str, Any]

    def run(self, fold: int) -> RunFolder:
        """Return the run of a fold."""
        return self.whole.fold(fold)

    @property
    def start(self) -> Path | None:
        """The weights that each fold begins from, if any.

        Raises:
            TrainingError: They are others than when the first fold began.
            FileError: They are gone.
        """
        start = self.record["start"]
        if start is None:
            return None
        if sha256(Path(start["file"])) != start["sha256"]:
            raise TrainingError(
                f"{start['file']}: holds other weights than those that {self.whole.root} began "
                "from.",
                remedy="Resume from a copy of these, or start again.",
            )
        return Path(start["file"])

    @property
    def best_dice(self) -> dict[int, float]:
        """The best Dice of each fold that is trained, in the order of the folds."""
        return dict(sorted((int(fold), dice) for fold, dice in self.record["trained"].items()))

    @property
    def runs(self) -> list[RunFolder]:
        """Those of the folds that are trained."""
        return [self.run(fold) for fold in self.best_dice]

    def note(self, fold: int, best_dice: float) -> None:
        """Record that a fold is trained."""
        self.record["trained"][str(fold)] = best_dice
        write_json(self.whole.manifest_file, self.record)

    @property
    def seen_beforehand(self) -> str:
        """What to add to out-of-fold scores where weights know more than their fold may."""
        beginnings = self._beginnings
        of_folds = (
            f"; {whose}, on the training scans of fold {', '.join(map(str, known.folds))}, which "
            "other folds are validated on"
            for whose, known in beginnings
            if known.folds
        )
        by_other_splits = (
            f"; {whose}, by other splits, and may have seen these scans"
            for whose, known in beginnings
            if known.other_splits
        )
        return "".join((*of_folds, *by_other_splits))

    @property
    def _beginnings(self) -> list[tuple[str, Foreknowledge]]:
        """What all folds make use of: how it was trained, in words, and what it may know."""
        manifest = self.runs[0].manifest()
        work = {
            "dataset": self.record["dataset"]["name"],
            "splits": self.record["hashes"]["splits.json"],
        }
        maps = manifest["network"].get("attention", {}).get("origin")
        return [
            (
                "the transformer that drew their attention maps was trained, without labels",
                foreknowledge(maps, work),
            ),
            (
                "the model that they began from was trained, with labels",
                foreknowledge(manifest.get("start"), work),
            ),
        ]


def folds_of(work: WorkFolder) -> tuple[Fold, ...]:
    """Read the folds.

    Raises:
        DatasetError: ``work`` is not prepared, has one fold only, or validates a case twice.
    """
    work.plan()  # says what is missing where nothing was prepared
    folds = read_folds(work.splits_file)
    twice = repeated(case for fold in folds for case in fold.val)
    if len(folds) < 2 or twice:
        fault = f"{twice[0]} is validated in several" if twice else "there is only one"
        raise DatasetError(
            f"--fold all: {work.splits_file}: {fault}.",
            remedy="Train with --fold 0 and so on, or prepare with other splits.",
        )
    return folds
