"""Lineage: the scans that weights learnt from before something begins with them.

A link is plain data, which manifests, models and transformers keep: ``dataset``, its name;
``splits``, the hash of their file; ``fold``, one or a list of those of all members; ``before``, the
link of the weights that these began from. What is not known is left out.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lamina.bundle import Bundle
from lamina.files import sha256
from lamina.folders.work import WorkFolder

log = logging.getLogger(__name__)

_LINK = ("model", "dataset", "splits", "fold", "before")


@dataclass(frozen=True)
class Foreknowledge:
    """What weights may know of prepared scans already."""

    folds: tuple[int, ...]
    """Those of the very same splits that they were trained for, one after the other."""
    other_splits: bool
    """Whether they were trained by other splits of the dataset, or of one that nobody named."""

    def warn(self, whose: str, fold: int, *, labels: bool) -> None:
        """Log what they may know of the validation scans of one fold.

        Args:
            whose: The weights, as the start of a sentence.
            fold: The one to validate on.
            labels: Whether they have learnt labels, too.
        """
        how = f"{'with' if labels else 'without'} their labels"
        if self.other_splits:
            log.warning(
                "%s was trained by other splits: it may have seen validation scans of this fold, "
                "%s.",
                *(whose, how),
            )
        if others := [each for each in self.folds if each != fold]:
            listed = ", ".join(map(str, others))
            log.warning(
                "%s has seen validation scans of fold %d, %s: it was trained for fold %s.",
                *(whose, fold, how, listed),
            )


def foreknowledge(origin: Any, work: Mapping[str, Any]) -> Foreknowledge:
    """Hold what weights learnt from, link by link, against prepared scans.

    Args:
        origin: The last link; anything else knows nothing.
        work: What :func:`identity` says of the scans.
    """
    folds, other_splits = dict[int, None](), False
    for link in _links(origin):
        splits = link.get("splits")
        if splits == work["splits"]:
            told = link.get("fold")
            several = told if isinstance(told, list) else [told]
            folds |= dict.fromkeys(fold for fold in several if isinstance(fold, int))
        elif splits is not None and link.get("dataset") in (None, work["dataset"]):
            other_splits = True
    return Foreknowledge(tuple(folds), other_splits)


def identity(work: WorkFolder) -> dict[str, Any]:
    """Return which prepared scans these are: the part of a link that all folds share."""
    return {"dataset": work.cohort().origin["name"], "splits": sha256(work.splits_file)}


def link_of(bundle: Bundle) -> dict[str, Any]:
    """Return what a model was trained on, as far as it tells."""
    hashes, dataset = (_mapping(bundle.provenance.get(name)) for name in ("hashes", "dataset"))
    members = _mapping(bundle.training.get("members")).values()
    told = {
        "dataset": dataset.get("name"),
        "splits": hashes.get("splits.json"),
        "fold": [_mapping(each).get("fold") for each in members] or bundle.training.get("fold"),
        "before": bundle.provenance.get("start"),
    }
    return {name: value for name, value in told.items() if value is not None}


def link_in(start: Mapping[str, Any]) -> dict[str, Any]:
    """Return the link in what a manifest says of the model that a run began from."""
    return {name: start[name] for name in _LINK if name in start}


def _links(origin: Any) -> Iterator[Mapping[str, Any]]:
    while isinstance(origin, Mapping):
        yield origin
        origin = origin.get("before")


def _mapping(told: Any) -> Mapping[str, Any]:
    """Return a mapping, or none: models of others may hold anything."""
    return told if isinstance(told, Mapping) else {}
