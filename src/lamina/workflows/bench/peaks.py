"""What the machine can do at best: matrix products and moving memory."""

import time
from collections.abc import Callable
from functools import partial

import torch

_SIDE = 2048
_COPIED_BYTES = 2**28
_REPEATS = 3


def peaks() -> dict[str, float]:
    """Return GFLOP/s of matrix products in float32 and bfloat16, and GB/s of copying memory.

    The best of a few tries each: other work on the machine only makes them lower.
    """
    found = {}
    for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
        a = torch.ones(_SIDE, _SIDE, dtype=dtype)
        b, out = a.clone(), a.clone()
        seconds = _least(partial(torch.mm, a, b, out=out))
        found[f"{name}_gflop_s"] = 2 * _SIDE**3 / seconds / 1e9
    source = torch.ones(_COPIED_BYTES // 4)
    target = torch.zeros_like(source)
    seconds = _least(lambda: target.copy_(source))
    return found | {"memory_gb_s": 2 * _COPIED_BYTES / seconds / 1e9}


def _least(job: Callable[[], object]) -> float:
    taken = []
    for _ in range(_REPEATS + 1):
        began = time.perf_counter()
        job()
        taken.append(time.perf_counter() - began)
    return min(taken[1:])


def roofline_s(
    operators: list[tuple[int, int]], *, gflop_s: float, memory_gb_s: float, value_bytes: int
) -> float:
    """Return the seconds that a network's products would take on a machine without any loss.

    Each takes the longer of its arithmetic and of reading and writing its arrays once.

    Args:
        operators: Multiply-accumulates, and values read and written, of each.
        gflop_s: Peak of the precision computed in.
        memory_gb_s: Bandwidth.
        value_bytes: Size of a value.
    """
    return sum(
        max(2 * macs / (gflop_s * 1e9), values * value_bytes / (memory_gb_s * 1e9))
        for macs, values in operators
    )
