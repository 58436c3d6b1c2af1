"""How sure a model is: entropy of what it holds likely, and how far its views of a scan agree.

Views are the members of an ensemble, and the mirror images of test-time augmentation. The entropy
of their mean probabilities is all the uncertainty there is; what remains when the mean entropy of
single views is taken off it is their disagreement (Houlsby et al., arXiv 1112.5745, Eq. 1): voxels
where each view is sure, but not of the same.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.data.decision import decided, to_probabilities
from lamina.data.plan import Plan
from lamina.inference.mirroring import Mirrored, mean_of, mirrored
from lamina.inference.sliding_window import Network

Views = Callable[[NDArray[np.float32]], Iterator[NDArray[Any]]]
"""``(B, C, *S)`` -> logits ``(B, K, *S)``, one after the other."""

_TINY = 1e-12


def views_of(networks: Sequence[Network], plan: Plan, *, tta: bool) -> Views:
    """Return what yields the logits of each network, and with ``tta`` of each mirror image too."""
    seers = [mirrored(network, plan) if tta else network for network in networks]

    def views(batch: NDArray[np.float32]) -> Iterator[NDArray[Any]]:
        return chain.from_iterable(
            seer.views(batch) if isinstance(seer, Mirrored) else iter((seer(batch),))
            for seer in seers
        )

    return views


class Tally:
    """Counts in how far views of a scan decide alike, window by window."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.alone = True
        """Whether no window was seen more than once."""
        self._shared, self._single = np.zeros((2, plan.labels.num_classes))

    def watch(self, views: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        """Pass on the logits ``(B, K, *S)`` of the views of a batch, and count at their end."""
        found = []
        for logits in views:
            found.append([_classes(each, self.plan) for each in logits])
            yield logits
        for window in zip(*found, strict=True):
            self._add(window)

    def _add(self, views: Sequence[NDArray[Any]]) -> None:
        """Count the voxels of one window, class indices ``(*S)`` of each view."""
        size, self.alone = len(self._shared), self.alone and len(views) == 1
        for one, other in combinations(views, 2):
            self._shared += np.bincount(one[one == other], minlength=size)
        for view in views:
            self._single += np.bincount(view.ravel(), minlength=size) * (len(views) - 1) / 2

    def take(self) -> dict[str, float]:
        """Return the Dice of two views, over all pairs, of each structure that any of them found.

        Voxels that several windows see count as often. The next window is that of another scan.
        """
        dice = {
            name: float(self._shared[index] / self._single[index])
            for index, name in enumerate(self.plan.labels.foreground, start=1)
            if self._single[index]
        }
        self._shared[:] = self._single[:] = 0
        return dice


class Agreeing:
    """A network of arrays that returns the mean logits of several views, and tallies them.

    Args:
        views: What yields them.
        plan: Says how classes follow from them.
    """

    def __init__(self, views: Views, plan: Plan) -> None:
        self.views = views
        self.tally = Tally(plan)

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the mean logits ``(B, K, *S)`` of a batch ``(B, C, *S)``."""
        return mean_of(self.tally.watch(self.views(batch)))


class Uncertainty:
    """A network of arrays that returns mean probabilities, then the mean entropy of single views.

    Args:
        views: What yields their logits.
        plan: Says whether channels are classes or regions.
    """

    def __init__(self, views: Views, plan: Plan) -> None:
        self.views = views
        self.tally = Tally(plan)
        self.exclusive = not plan.region_based

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return ``(B, K + 1, *S)`` of a batch ``(B, C, *S)``."""
        return mean_of(map(self._told, self.tally.watch(self.views(batch))))

    def _told(self, logits: NDArray[Any]) -> NDArray[np.float32]:
        likely = [to_probabilities(each.astype(np.float32), self.exclusive) for each in logits]
        alone = [entropy(each, self.exclusive)[None] for each in likely]
        return np.concatenate([np.stack(likely), np.stack(alone)], axis=1)

    def finish(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return entropy and disagreement ``(2, *S)`` of such maps ``(K + 1, *S)``."""
        likely, single = block[:-1], block[-1]
        whole = entropy(likely, self.exclusive)
        return np.stack([whole, np.maximum(whole - single, 0)]).astype(np.float32)


def entropy(probabilities: NDArray[np.float32], exclusive: bool) -> NDArray[np.float32]:
    """Return the entropy ``(*S)`` of probabilities ``(K, *S)``, from 0 to 1: all equally likely.

    Args:
        probabilities: Of classes, or of regions, of whose entropies the mean is taken.
        exclusive: Whether just one channel is true.
    """
    likely = np.clip(probabilities, _TINY, 1)
    told = likely * np.log(likely)
    if exclusive:
        return np.asarray(-told.sum(axis=0) / np.log(len(likely)))
    other = np.clip(1 - probabilities, _TINY, 1)
    return np.asarray(-(told + other * np.log(other)).mean(axis=0) / np.log(2))


def by_structure(
    maps: Mapping[str, NDArray[np.float32]], indices: NDArray[Any], plan: Plan
) -> dict[str, dict[str, float]]:
    """Return the mean of each map over the voxels of each structure that was found.

    Args:
        maps: Name -> ``(*S)``.
        indices: Class indices ``(*S)``.
        plan: Names the classes.
    """
    counts = np.bincount(indices.ravel(), minlength=plan.labels.num_classes)
    sums = {
        name: np.bincount(indices.ravel(), weights=found.ravel(), minlength=len(counts))
        for name, found in maps.items()
    }
    return {
        structure: {name: float(of[index] / counts[index]) for name, of in sums.items()}
        for index, structure in enumerate(plan.labels.foreground, start=1)
        if counts[index]
    }


def _classes(logits: NDArray[Any], plan: Plan) -> NDArray[Any]:
    found = decided(logits, drawing=plan.drawing).astype(np.uint8)
    return np.broadcast_to(found, logits.shape[1:])
