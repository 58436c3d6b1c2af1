"""Attention within windows of tokens, shifted every other time (Swin).

Liu et al.: *Swin Transformer: Hierarchical Vision Transformer using Shifted Windows*, ICCV 2021.

GLIMS' published weights expect three slips of its code, which ``released`` reproduces: in a window
smaller than usual, tokens take the relative positions of the first tokens of a full window; padding
is attended to; merging leaves out two of eight neighbours and reads two others twice.
"""

from itertools import product
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lamina.models.layers.size import resize

WINDOW = 7
"""Tokens per axis of a full window."""

_RELEASED_NEIGHBOURS = (
    *((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)),
    *((1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1)),
)


class Windows:
    """How a grid of tokens is cut into windows: padded at the far ends, rolled, split.

    Args:
        grid: Tokens per axis.
        shifted: Windows start half a window further, on axes that have more than one.
    """

    def __init__(self, grid: tuple[int, ...], *, shifted: bool) -> None:
        self.grid = grid
        self.size = tuple(min(n, WINDOW) for n in grid)
        self.shift = tuple(WINDOW // 2 if shifted and n > WINDOW else 0 for n in grid)
        self._padding = tuple(-n % w for n, w in zip(grid, self.size, strict=True))
        self._axes = tuple(range(1, len(grid) + 1))
        self._outer = tuple(range(1, 2 * len(grid), 2))

    def split(self, x: Tensor) -> Tensor:
        """``(B, *grid, C) -> (B * windows, tokens, C)``."""
        # F.pad counts axes from the last, the channels, and wants the pad before and after each.
        x = F.pad(x, (0, 0, *(n for end in reversed(self._padding) for n in (0, end))))
        x = x.roll([-n for n in self.shift], self._axes) if any(self.shift) else x
        return self._partition(x)

    def join(self, windows: Tensor) -> Tensor:
        """Undo :meth:`split`."""
        counts = [-(-n // w) for n, w in zip(self.grid, self.size, strict=True)]
        x: Tensor = windows.unflatten(0, (-1, *counts)).unflatten(-2, self.size)
        x = x.movedim(self._axes, self._outer)
        for axis in self._axes:
            x = x.flatten(axis, axis + 1)
        x = x.roll(self.shift, self._axes) if any(self.shift) else x
        for axis, n in zip(self._axes, self.grid, strict=True):
            x = x.narrow(axis, 0, n)
        return x

    def blocked(self, *, padding: bool) -> Tensor | None:
        """Tell which tokens must not attend to which.

        A shift brings tokens from opposite ends of the grid into one window; they must not meet.

        Args:
            padding: Tokens must not attend to padding, either.

        Returns:
            Boolean ``(windows, tokens, tokens)``, by query and key; ``None`` where all may.
        """
        padding = padding and any(self._padding)
        if not any(self.shift) and not padding:
            return None
        regions = torch.zeros(())
        for n, more, w, shift in zip(self.grid, self._padding, self.size, self.shift, strict=True):
            end, place = n + more, torch.arange(n + more)
            regions = 3 * regions[..., None] + (place >= end - w).int() + (place >= end - shift)
        region = self._partition(regions[None, ..., None])
        blocked = region != region.mT
        if padding:
            # Padding may see itself: a query that sees nothing would become not a number.
            real = self.split(torch.ones(1, *self.grid, 1)) > 0
            blocked = blocked | (real & ~real.mT)
        return blocked

    def _partition(self, x: Tensor) -> Tensor:
        for axis, w in zip(self._outer, self.size, strict=True):
            x = x.unflatten(axis, (-1, w))
        x = x.movedim(self._outer, self._axes)
        return x.reshape(-1, prod(self.size), x.shape[-1])


def relative_positions(spatial_dims: int) -> Tensor:
    """Number the offsets between tokens of a full window, from 0: ``(tokens, tokens)``."""
    codes = torch.zeros(1, dtype=torch.long)
    for _ in range(spatial_dims):
        codes = ((2 * WINDOW - 1) * codes[:, None] + torch.arange(WINDOW)).flatten()
    return codes[:, None] - codes + codes[-1]


class WindowAttention(nn.Module):
    """Self-attention among the tokens of each window, biased by a number per offset and head."""

    def __init__(self, channels: int, heads: int, spatial_dims: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.bias_table = nn.Parameter(torch.empty((2 * WINDOW - 1) ** spatial_dims, heads))
        self.proj = nn.Linear(channels, channels)
        nn.init.trunc_normal_(self.bias_table, std=0.02)

    def forward(self, x: Tensor, positions: Tensor, blocked: Tensor | None) -> Tensor:
        """``(B * windows, tokens, C)``, relative positions, what is blocked -> like the first."""
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        bias = F.embedding(positions, self.bias_table).permute(2, 0, 1)[None]
        if blocked is not None:
            bias = bias.masked_fill(blocked.unsqueeze(1), -torch.inf)
            bias = bias.repeat(x.shape[0] // bias.shape[0], 1, 1, 1)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        attended: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return attended

    def received(self, x: Tensor, positions: Tensor, blocked: Tensor | None) -> Tensor:
        """Return how much the tokens of a window read from each: ``(B * windows, tokens)``, mean 1.

        Arguments are those of a forward pass.
        """
        query, key, _ = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        scores = query @ key.mT * query.shape[-1] ** -0.5
        scores = scores + F.embedding(positions, self.bias_table).permute(2, 0, 1)
        if blocked is not None:
            hidden = blocked.repeat(x.shape[0] // blocked.shape[0], 1, 1)
            scores = scores.masked_fill(hidden.unsqueeze(1), -torch.inf)
        shares: Tensor = scores.softmax(dim=-1).mean(dim=1).sum(dim=1)
        return shares


class SwinBlock(nn.Module):
    """Attention within windows, then two layers per token, each beside an identity (Eq. 3).

    Between the two layers stands a PReLU, as in GLIMS, where Liu et al. have GELU.
    """

    def __init__(self, channels: int, heads: int, spatial_dims: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attention = WindowAttention(channels, heads, spatial_dims)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 4 * channels), nn.PReLU(), nn.Linear(4 * channels, channels)
        )

    def forward(
        self, x: Tensor, windows: Windows, positions: Tensor, blocked: Tensor | None
    ) -> Tensor:
        """``(B, *S, C) -> (B, *S, C)``."""
        tokens = windows.split(self.norm1(x))
        x = x + windows.join(self.attention(tokens, positions, blocked))
        mixed: Tensor = x + self.mlp(self.norm2(x))
        return mixed

    def received(
        self, x: Tensor, windows: Windows, positions: Tensor, blocked: Tensor | None
    ) -> Tensor:
        """Return how much the tokens of its window read from each: ``(B, 1, *S)``, mean about 1."""
        tokens = windows.split(self.norm1(x))
        shares = self.attention.received(tokens, positions, blocked)
        return windows.join(shares.unsqueeze(-1)).movedim(-1, 1)


class SwinBlocks(nn.ModuleList):
    """Swin blocks in a row, every second one with shifted windows.

    Args:
        channels: Of each token.
        depth: Number of blocks.
        heads: Attention heads, a divisor of ``channels``.
        grid: Usual number of tokens per axis. Other grids are fine, but what may attend to what
            is then worked out anew each time.
        released: Behave as GLIMS' code does.
    """

    positions: Tensor
    blocked: Tensor | None
    blocked_shifted: Tensor | None

    def __init__(
        self, channels: int, depth: int, heads: int, grid: tuple[int, ...], *, released: bool
    ) -> None:
        super().__init__(SwinBlock(channels, heads, len(grid)) for _ in range(depth))
        self.grid, self.released = grid, released
        self.register_buffer("positions", relative_positions(len(grid)), persistent=False)
        for name, shifted in (("blocked", False), ("blocked_shifted", True)):
            blocked = Windows(grid, shifted=shifted).blocked(padding=not released)
            self.register_buffer(name, blocked, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *S) -> (B, C, *S)``."""
        grid = tuple(x.shape[2:])
        windows = Windows(grid, shifted=False), Windows(grid, shifted=True)
        positions = self.offsets(windows[0].size)
        blocked = [self.blocked, self.blocked_shifted]
        if grid != self.grid:
            masks = (cut.blocked(padding=not self.released) for cut in windows)
            blocked = [None if mask is None else mask.to(x.device) for mask in masks]
        x = x.movedim(1, -1)
        for place, block in enumerate(self):
            odd = place % 2
            x = block(x, windows[odd], positions, blocked[odd])
        return x.movedim(-1, 1)

    def offsets(self, size: tuple[int, ...]) -> Tensor:
        """Number the offsets between tokens of a window of ``size``: ``(tokens, tokens)``."""
        if self.released:
            return self.positions[: prod(size), : prod(size)]
        first = tuple(slice(n) for n in 2 * size)
        positions = self.positions.view((WINDOW,) * len(first))[first]
        return positions.reshape(prod(size), prod(size))


class PositionEmbedding(nn.Module):
    """Adds a learned vector to each token of a usual grid; interpolated linearly for others."""

    def __init__(self, channels: int, grid: tuple[int, ...]) -> None:
        super().__init__()
        self.grid = grid
        self.embeddings = nn.Parameter(torch.empty(1, channels, prod(grid)))
        nn.init.trunc_normal_(self.embeddings, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *S) -> (B, C, *S)``."""
        return x + resize(self.embeddings.unflatten(2, self.grid), x.shape[2:])


class PatchMerging(nn.Module):
    """Makes one token of twice the channels of each block of 2x2x2 tokens (section 3.1)."""

    def __init__(self, channels: int, *, released: bool) -> None:
        super().__init__()
        self.neighbours = _RELEASED_NEIGHBOURS if released else tuple(product((0, 1), repeat=3))
        width = len(self.neighbours) * channels
        self.norm = nn.LayerNorm(width)
        self.reduction = nn.Linear(width, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *S) -> (B, 2 C, *S / 2)``."""
        x = x.movedim(1, -1)
        parts = [x[(slice(None), *(slice(n, None, 2) for n in start))] for start in self.neighbours]
        merged: Tensor = self.reduction(self.norm(torch.cat(parts, dim=-1)))
        return merged.movedim(-1, 1)


class PatchExpanding(nn.Module):
    """Makes of each token of a volume a block of 2x2x2 tokens of half the channels.

    A token's channels go to the second axis in halves, those to the third, those to the first.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = nn.Linear(channels, 4 * channels, bias=False)
        self.norm = nn.LayerNorm(channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *S) -> (B, C / 2, 2 *S)``."""
        x = self.expand(x.movedim(1, -1)).unflatten(-1, (2, 2, 2, -1))
        x = x.permute(0, 1, 6, 2, 4, 3, 5, 7)  # B, D and its offset, H and its, W and its, C
        expanded: Tensor = self.norm(x.flatten(5, 6).flatten(3, 4).flatten(1, 2))
        return expanded.movedim(-1, 1)


class TokenNorm(nn.Module):
    """Layer normalisation of each token, of however many channels, without weights."""

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *S) -> (B, C, *S)``."""
        tokens = x.movedim(1, -1)
        return F.layer_norm(tokens, tokens.shape[-1:]).movedim(-1, 1)
