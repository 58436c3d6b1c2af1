"""What a prediction takes of memory, known before it starts."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from lamina.errors import ResourceError

_RESET = Path("/proc/self/clear_refs")
"""Where Linux is told to forget the most that this process has held."""
_STATUS = Path("/proc/self/status")
_POLL_S = 0.001


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes that a prediction takes, by what takes them."""

    program_bytes: int
    """What the process holds already: the program, the model, the scan."""
    prepared_bytes: int
    """The prepared image, with any attention maps."""
    preparing_bytes: int
    """What preparing it takes for a while beside it."""
    slab_bytes: int
    """Logits that exist at a time, with their weights."""
    tile_bytes: int
    """What the network takes for one window."""
    indices_bytes: int
    """Class indices on the scan's grid."""
    output_bytes: int
    """The segmentation, which they become in the end."""
    finishing_bytes: int
    """What postprocessing takes for a while beside it."""
    sw_batch_size: int
    """Windows that go through the network at a time."""

    @property
    def peak_bytes(self) -> int:
        """The most that the process holds at any time."""
        windows = self.slab_bytes + self.sw_batch_size * self.tile_bytes + self.indices_bytes
        return self.program_bytes + max(
            self.prepared_bytes + max(self.preparing_bytes, windows),
            self.output_bytes + max(self.indices_bytes, self.finishing_bytes),
        )

    def within(self, ram_bytes: float, source: str) -> "Memory":
        """Return the same with as many windows at a time as a limit allows.

        Args:
            ram_bytes: The most that the process may hold.
            source: The scan's file, for the message.

        Raises:
            ResourceError: One at a time is too much.
        """
        if self.peak_bytes <= ram_bytes:
            return self
        if self.sw_batch_size > 1:
            return replace(self, sw_batch_size=self.sw_batch_size // 2).within(ram_bytes, source)
        raise ResourceError(
            f"{source}: takes {self.peak_bytes / 1e9:.2f} GB of memory to segment, "
            f"{ram_bytes / 1e9:.2f} GB are granted.",
            remedy="Grant more, or use a model with a smaller window or fewer classes.",
        )


def held() -> int:
    """Return the bytes of memory that this process holds now."""
    return int(psutil.Process().memory_info().rss)


def taken_by(job: Callable[[], Any]) -> int:
    """Return by how many bytes this process grows at most while it does a job."""
    before = held()
    try:
        _RESET.write_text("5", "ascii")
    except OSError:  # not on Linux
        return _watched(job) - before
    job()
    return max(0, _high_water() - before)


def peak_bytes(device: str = "cpu") -> int:
    """Return the most memory that this process, or its tensors on a GPU, have taken so far."""
    if device != "cpu":
        import torch

        return torch.cuda.max_memory_allocated(device)
    if _STATUS.is_file():
        # Not getrusage: what it says a new process inherits from the one that started it.
        return _high_water()
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _high_water() -> int:
    line = next(s for s in _STATUS.read_text("ascii").splitlines() if s.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def _watched(job: Callable[[], Any]) -> int:
    """Return the most that this process is seen to hold while it does a job."""
    seen = [held()]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_POLL_S):
            seen.append(held())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        job()
    finally:
        done.set()
        watcher.join()
    return max(*seen, held())
