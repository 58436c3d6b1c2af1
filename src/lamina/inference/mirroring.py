"""Test-time augmentation: the mean logits of a window and its mirror images."""

from collections.abc import Iterator, Sequence
from itertools import chain, combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.data.plan import Plan
from lamina.data.sides import side_pairs
from lamina.inference.sliding_window import Network


class Mirrored:
    """A network that sees each window in all its mirror images; their logits are averaged.

    Args:
        network: What sees them.
        axes: Axes of the window to mirror along.
        side_axis: The one of them that runs from one side of the body to the other.
        exchanged: Which channel stands for each in a window mirrored along ``side_axis``; every
            one for itself by default.
    """

    def __init__(
        self,
        network: Network,
        axes: Sequence[int],
        side_axis: int | None = None,
        exchanged: Sequence[int] | None = None,
    ) -> None:
        self.network = network
        self.side_axis = side_axis
        self.exchanged = None if exchanged is None else list(exchanged)
        self._flips = list(
            chain.from_iterable(combinations(axes, count) for count in range(1, len(axes) + 1))
        )

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[Any]:
        """Return the mean logits ``(B, K, *S)`` of a batch ``(B, C, *S)``."""
        return mean_of(self.views(batch))

    def views(self, batch: NDArray[np.float32]) -> Iterator[NDArray[Any]]:
        """Yield the logits ``(B, K, *S)`` of a batch, then those of each mirror image, put back."""
        yield self.network(batch)
        for flips in self._flips:
            places = tuple(2 + axis for axis in flips)
            logits = np.flip(self.network(np.flip(batch, places)), places)
            mirrored_sides = self.side_axis in flips and self.exchanged is not None
            yield logits[:, self.exchanged] if mirrored_sides else logits


def mean_of(views: Iterator[NDArray[Any]]) -> NDArray[np.float32]:
    """Return the mean of one array or more of one shape."""
    total, count = next(views).astype(np.float32), 1
    for view in views:
        total += view
        count += 1
    total /= count
    return total


def mirrored(network: Network, plan: Plan) -> Network:
    """Wrap a network to see the mirror images that its plan allows; itself where there are none.

    Labels of the two sides of the body take each other's place, as they did in training. Regions do
    where the mirror image of each is one; else nothing is mirrored along that axis.
    """
    side, exchanged = plan.seen_side_axis, _exchanged(plan)
    axes = [axis for axis in plan.seen_mirror_axes if axis != side or exchanged is not None]
    if exchanged == list(range(plan.num_outputs)):
        exchanged = None
    return Mirrored(network, axes, side, exchanged) if axes else network


def _exchanged(plan: Plan) -> list[int] | None:
    """Return which channel is whose mirror image; ``None`` where a region's is no region."""
    order = list(range(plan.labels.num_classes))
    for low, high in side_pairs(plan.labels):
        order[low], order[high] = high, low
    if not plan.region_based:
        return order
    names = plan.labels.foreground
    partner = {name: names[order[i] - 1] for i, name in enumerate(names, start=1)}
    regions = [frozenset(members) for members in plan.labels.regions.values()]
    images = [frozenset(partner[name] for name in region) for region in regions]
    if not set(images) <= set(regions):
        return None
    return [regions.index(image) for image in images]
