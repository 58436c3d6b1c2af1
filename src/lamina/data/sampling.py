"""Which patch is seen when: a pure function of seed, step and slot.

Nothing is drawn from a stream whose state would have to be saved. A run that was killed and resumed
asks for the same steps and gets the same patches, whatever the number of loader workers.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.random import Generator, Philox
from numpy.typing import NDArray

from lamina.data.cache import PreparedCase

_ORDER_STREAM = 2**63
"""Counter word that keeps the shuffling of cases apart from every step's draws."""


def random_for(seed: int, step: int, slot: int) -> Generator:
    """Return one patch's generator: same numbers, same draws; other numbers, independent."""
    return Generator(Philox(key=seed, counter=[0, 0, step, slot]))


@dataclass(frozen=True, kw_only=True)
class PatchSampler:
    """Chooses case and centre of every patch.

    Of the patches, a share is centred on a voxel of a structure, the rest lie anywhere. Balanced by
    case, cases come in shuffled rounds, so that each is seen equally often, and the structure is
    drawn evenly from those in the case. Balanced by class, it is drawn evenly from those in any
    case, and then a case that has it: one that only few have is seen as often as the others.
    """

    cases: Sequence[PreparedCase]
    patch_size: tuple[int, ...]
    batch_size: int
    seed: int
    oversample_foreground: float
    """Probability that a patch is centred on foreground, 0 to 1."""
    balance: Literal["case", "class"] = "case"

    def place_for(
        self, step: int, slot: int, rng: Generator
    ) -> tuple[PreparedCase, tuple[int, ...]]:
        """Return the case that the patch is cut from, and its first voxel there."""
        if self.balance == "case":
            case = self.case_for(step, slot)
            return case, self.start_for(case, rng)
        wants_foreground = rng.random() < self.oversample_foreground
        if not (wants_foreground and self._holders):
            case = self.case_for(step, slot)
            return case, _as_start(rng.integers(*self._range_in(case)))
        structure = int(rng.choice(sorted(self._holders)))
        case = self.cases[int(rng.choice(self._holders[structure]))]
        start = rng.integers(*self._range_in(case))
        return case, self._start_around(case, case.positions[structure], start, rng)

    def case_for(self, step: int, slot: int) -> PreparedCase:
        """Return the case that the patch is cut from."""
        round_, place = divmod(step * self.batch_size + slot, len(self.cases))
        order = random_for(self.seed, round_, _ORDER_STREAM).permutation(len(self.cases))
        return self.cases[int(order[place])]

    def start_for(self, case: PreparedCase, rng: Generator) -> tuple[int, ...]:
        """Return the patch's first voxel, outside the case where the patch is larger."""
        wants_foreground = rng.random() < self.oversample_foreground
        start = rng.integers(*self._range_in(case))
        if not (wants_foreground and (positions := case.positions)):
            return _as_start(start)
        return self._start_around(case, positions[rng.choice(sorted(positions))], start, rng)

    @cached_property
    def _holders(self) -> dict[int, list[int]]:
        """Class index -> which cases have it."""
        holders = defaultdict(list)
        for number, case in enumerate(self.cases):
            for structure in case.positions:
                holders[structure].append(number)
        return dict(holders)

    def _range_in(self, case: PreparedCase) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the first voxels that a patch may have, the upper bounds excluded."""
        room = np.array(case.label.shape[1:]) - np.array(self.patch_size)
        return np.minimum(0, room), np.maximum(0, room) + 1

    def _start_around(
        self,
        case: PreparedCase,
        positions: NDArray[np.int32],
        start: NDArray[np.int64],
        rng: Generator,
    ) -> tuple[int, ...]:
        """Move ``start`` to one of the positions along axes on which the patch is smaller."""
        low, end = self._range_in(case)
        centre = rng.choice(positions)
        inside = np.clip(centre - np.array(self.patch_size) // 2, low, end - 1)
        return _as_start(np.where(end > 1, inside, start))


def _as_start(voxel: NDArray[np.int64]) -> tuple[int, ...]:
    return tuple(int(x) for x in voxel)
