"""Normalisation of every voxel by itself."""

from torch import Tensor, nn


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of every voxel."""

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *S) -> (B, C, *S)``."""
        normalised: Tensor = super().forward(x.movedim(1, -1))
        return normalised.movedim(-1, 1)
