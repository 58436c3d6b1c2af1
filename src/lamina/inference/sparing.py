"""A network that goes on when memory runs out: with fewer windows at a time, then on the CPU."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.errors import ResourceError
from lamina.inference.sliding_window import Network

log = logging.getLogger(__name__)


class Sparing:
    """Runs a network, and does again in smaller parts or elsewhere what did not fit into memory.

    Nothing is missing then, and the logits are those of a machine with more memory. What was given
    up stays so for later calls.

    Args:
        network: Raises ``MemoryError`` where a batch does not fit.
        fallback: Moves it to the CPU, or returns ``None`` where it is there already.
    """

    def __init__(
        self, network: Network, fallback: Callable[[], Network | None] = lambda: None
    ) -> None:
        self.network = network
        self._fallback = fallback
        self._most: int | None = None

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[Any]:
        """Return the logits of a batch.

        Raises:
            ResourceError: A single window does not fit, on the CPU neither.
        """
        while True:
            size = min(len(batch), self._most or len(batch))
            try:
                return self._in_parts(batch, size)
            except MemoryError as error:
                reason = str(error) or "out of memory"
            self._retreat(size, reason)  # out of the block above, which holds what did not fit

    def _in_parts(self, batch: NDArray[np.float32], size: int) -> NDArray[Any]:
        if size == len(batch):
            return self.network(batch)
        parts = [self.network(batch[i : i + size]) for i in range(0, len(batch), size)]
        return np.concatenate(parts)

    def _retreat(self, size: int, reason: str) -> None:
        if size > 1:
            self._most = size // 2
            log.warning("%s; going on with %d windows at a time.", reason, self._most)
            return
        fallback = self._fallback()
        if fallback is None:
            raise ResourceError(
                f"One window does not fit into memory: {reason}.",
                remedy="Free some memory, or use a model with a smaller window.",
            )
        log.warning("%s; going on on the CPU, which takes longer.", reason)
        self.network, self._fallback = fallback, lambda: None
