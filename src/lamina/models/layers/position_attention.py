"""Attention between all positions of a map, in memory that grows with their number alone."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lamina.models.layers.convolution import conv

_QUERIES = 512
"""Positions whose attention to all others exists at a time."""


class PositionAttention(nn.Module):
    """Adds to every position a learned share of all positions that resemble it; at first nothing.

    Fu et al.: *Dual Attention Network for Scene Segmentation*, CVPR 2019, section 3.2. One head,
    logits not scaled; queries and keys have an eighth of the channels, a multiple of 8.
    """

    def __init__(self, spatial_dims: int, channels: int) -> None:
        super().__init__()
        self.query = conv(spatial_dims, channels, channels // 8, 1)
        self.key = conv(spatial_dims, channels, channels // 8, 1)
        self.value = conv(spatial_dims, channels, channels, 1)
        self.share = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *S) -> (B, C, *S)``."""
        query, key, value = (_tokens(map_(x)) for map_ in (self.query, self.key, self.value))
        # Kernels that never hold all pairs of positions want heads of one size. Zeros add nothing.
        missing = (0, value.shape[-1] - key.shape[-1])
        query, key = F.pad(query, missing), F.pad(key, missing)
        mixed = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        return x + self.share * mixed.transpose(-1, -2).reshape(x.shape)

    def received(self, x: Tensor) -> Tensor:
        """Return how much all positions read from each: ``(B, C, *S) -> (B, 1, *S)``, mean 1."""
        query, key = _tokens(self.query(x)), _tokens(self.key(x))
        total = x.new_zeros(len(x), key.shape[2])
        for part in query.split(_QUERIES, dim=2):
            total += (part @ key.mT).softmax(dim=-1).sum(dim=(1, 2))
        return total.reshape(len(x), 1, *x.shape[2:])


def _tokens(x: Tensor) -> Tensor:
    """``(B, C, *S) -> (B, 1, prod(S), C)``: a batch of single heads, contiguous."""
    return x.flatten(2).transpose(1, 2).contiguous().unsqueeze(1)
