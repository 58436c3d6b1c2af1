"""A channels-last map as a matrix with a row per voxel, worked on in pieces that fit the cache.

Operators of one voxel (normalisation, activation, 1x1x1 convolution) follow one another on a piece
before the next piece is touched, so that memory is read once and written once for all of them.
Statistics of what they return are gathered on the way.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

CHUNK = 1 << 19
"""Numbers per piece and map: a few such pieces fit the second-level caches."""
_ROWS = 256  # a piece has a multiple of them
_WIDE = 128  # columns from which work on columns runs at full speed

Step = Callable[[Tensor], Tensor]
"""``(N, C) -> (N, C')``, each row by itself; it may change its argument."""


class Moments(NamedTuple):
    """Mean and biased variance of every column, float32 ``(C,)``."""

    mean: Tensor
    variance: Tensor


def to_rows(x: Tensor) -> Tensor:
    """``(1, C, *S) -> (prod(S), C)``, a view of channels-last memory."""
    return x.movedim(1, -1).reshape(-1, x.shape[1]).contiguous()


def to_map(rows: Tensor, size: torch.Size) -> Tensor:
    """Undo :func:`to_rows`."""
    return rows.view(1, *size, rows.shape[1]).movedim(-1, 1)


def moments(rows: Tensor) -> Moments:
    """Return the statistics of ``(N, C)``, by two passes, so that a large mean costs no digits.

    Pieces are joined rather than summed on: long sums of float32 lose digits, too.
    """
    wide, fold = _wide(rows)
    unused = rows.new_zeros(wide.shape[1], dtype=torch.float32)
    pieces = wide.split(max(1, CHUNK // wide.shape[1]))
    found = [torch.batch_norm_update_stats(piece, unused, unused, 0.0) for piece in pieces]
    means, variances = (
        torch.cat(parts).view(len(pieces) * fold, -1) for parts in zip(*found, strict=True)
    )
    shares = [len(piece) / len(wide) / fold for piece in pieces for _ in range(fold)]
    return _joined(means, variances, shares)


def scaled(rows: Tensor, factors: Tensor) -> Tensor:
    """Multiply the columns of ``(N, C)`` by ``(C,)``, in place."""
    wide, fold = _wide(rows)
    wide.mul_(factors.repeat(fold).to(rows.dtype))
    return rows


def _wide(rows: Tensor) -> tuple[Tensor, int]:
    """See several short rows as one, for inner loops of some length; tell how many."""
    n, c = rows.shape
    fold = 1
    while fold * c < _WIDE and n % (2 * fold) == 0:
        fold *= 2
    return rows.view(-1, fold * c), fold


class Product(NamedTuple):
    """A matrix product that ends a step: ``rows @ weight + bias``."""

    weight: Tensor
    """``(C, C')``."""
    bias: Tensor
    """``(C',)``."""


def applied(
    step: Callable[..., Tensor],
    sources: Sequence[Tensor],
    out: Tensor | None = None,
    product: Product | None = None,
) -> Tensor:
    """Return ``step``, and then ``product``, of the rows of all sources, piece by piece.

    Args:
        step: Takes a piece of each source, returns ``(n, C)``.
        sources: Matrices ``(N, C_i)`` of equally many rows.
        out: Where to write the result if it fits, possibly one of the sources.
        product: What follows ``step``, if anything.
    """
    return _swept(step, sources, out, product, lambda piece: None)


def measured(
    step: Callable[..., Tensor],
    sources: Sequence[Tensor],
    out: Tensor | None = None,
    product: Product | None = None,
) -> tuple[Tensor, Moments]:
    """Return what :func:`applied` does, and its statistics."""
    found: list[Moments] = []
    shares: list[float] = []

    def note(piece: Tensor) -> None:
        found.append(moments(piece))
        shares.append(len(piece) / len(sources[0]))

    result = _swept(step, sources, out, product, note)
    means, variances = (torch.stack(parts) for parts in zip(*found, strict=True))
    return result, _joined(means, variances, shares)


def _swept(
    step: Callable[..., Tensor],
    sources: Sequence[Tensor],
    out: Tensor | None,
    product: Product | None,
    note: Callable[[Tensor], None],
) -> Tensor:
    n, width = len(sources[0]), max(source.shape[1] for source in sources)
    size = max(_ROWS, CHUNK // width // _ROWS * _ROWS)
    for start in range(0, n, size):
        piece = step(*(source[start : start + size] for source in sources))
        if product:
            piece = piece.to(product.weight.dtype)
        width = product.weight.shape[1] if product else piece.shape[1]
        if out is None or (out.shape[1], out.dtype) != (width, piece.dtype):
            out = piece.new_empty(n, width)
        place = out[start : start + size]
        if product:
            torch.addmm(product.bias, piece, product.weight, out=place)
        else:
            place.copy_(piece)
        note(place)
    assert out is not None  # a map has voxels
    return out


def _joined(means: Tensor, variances: Tensor, shares: Sequence[float]) -> Moments:
    share = means.new_tensor(shares)[:, None]
    mean = (share * means).sum(0)
    return Moments(mean, (share * (variances + (means - mean).square())).sum(0))
