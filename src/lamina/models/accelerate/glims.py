"""Fast forms of the blocks of GLIMS."""

from typing import Any

import torch
from torch import Tensor, nn

from lamina.models.accelerate.forms import fast, fast_parts, form_of
from lamina.models.accelerate.rows import applied, measured, moments, to_map, to_rows
from lamina.models.accelerate.steps import Pointwise, joined
from lamina.models.glims import CSAB, DACB, DecoderLevel


@form_of(DACB)
class FastDACB(nn.Module):
    """Four passes over memory: what follows a normalisation joins what comes before the next."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(fast(branch[0]) for branch in block.branches)
        self.branches = nn.ModuleList(branch[1:] for branch in block.branches)
        self.widen = Pointwise(block.expand[0])
        self.narrow = nn.ModuleList([*block.expand[1:], Pointwise(block.project[0])])
        self.projected, self.out = block.project[1:], block.out

    def forward(self, x: Tensor) -> Tensor:
        """``(1, C, *S) -> (1, C, *S)``."""
        rows = to_rows(x)
        n = len(rows)
        looked = [to_rows(convolution(x)) for convolution in self.convolutions]
        pairs = zip(self.branches, looked, strict=True)
        ends = [joined(layers, moments(y), n, fresh=False)[0] for layers, y in pairs]

        def branches(*pieces: Tensor) -> Tensor:
            parts = [end(piece) for end, piece in zip(ends, pieces, strict=True)]
            return torch.cat(parts, dim=1)

        wide, found = measured(branches, looked, product=self.widen.product)
        narrow, product = joined(self.narrow, found, n, fresh=True)
        mixed, found = measured(narrow, [wide], looked[0], product)
        end, _ = joined(self.projected, found, n, fresh=True)
        mixed, found = measured(lambda y, x: end(y).add_(x), [mixed, rows], mixed)
        out, _ = joined(self.out, found, n, fresh=True)
        return to_map(applied(out, [mixed], mixed), x.shape[2:])


@form_of(CSAB)
class FastCSAB(nn.Module):
    """The skip is weighed where it lies, for GLIMS reads it once."""

    def __init__(self, block: CSAB) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *S) -> (B, C, *S)``."""
        return x.mul_(self.block.gate(x).to(x.dtype))


class FastDecoderLevel(nn.Module):
    """What ends the way up and the 1x1x1 convolution of it beside the skip, in one pass."""

    def __init__(self, level: Any) -> None:
        super().__init__()
        *up, self.up_norm, self.up_act = level.up
        self.up = fast(nn.Sequential(*up))
        self.fuse, self.fuse_end = Pointwise(level.fuse[0]), level.fuse[1:]
        self.blocks = fast(level.blocks)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """``(1, 2 C, *S / 2)``, skip ``(1, C, *S)`` -> ``(1, C, *S)``."""
        up = to_rows(self.up(x))
        n = len(up)
        take, _ = joined([self.up_norm, self.up_act], moments(up), n, fresh=False)

        def beside(up: Tensor, skip: Tensor) -> Tensor:
            return torch.cat([take(up), skip], dim=1)

        fused, found = measured(beside, [up, to_rows(skip)], up, self.fuse.product)
        end, _ = joined(self.fuse_end, found, n, fresh=True)
        decoded: Tensor = self.blocks(to_map(applied(end, [fused], fused), skip.shape[2:]))
        return decoded


@form_of(DecoderLevel)
def decoder_level(level: Any) -> nn.Module:
    """Return the fast form of a convolutional level; of others, of their parts."""
    convolutional = isinstance(level.up[0], nn.ConvTranspose3d)
    return FastDecoderLevel(level) if convolutional else fast_parts(level)
