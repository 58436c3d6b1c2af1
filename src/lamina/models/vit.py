"""Vision transformer: one vector for a picture, and maps of where each head looks for it.

Dosovitskiy et al.: *An Image is Worth 16x16 Words*, ICLR 2021, arXiv 2010.11929 (section 3.1), as
Caron et al. train it without labels: *Emerging Properties in Self-Supervised Vision Transformers*
(DINO), ICCV 2021, arXiv 2104.14294. It does not segment: :mod:`lamina.models.dainet` reads its
maps. Weights have the names of DINO's checkpoints, and ViT-S/16 has their 21.7 M. Our choices:

* Positions are learned for one size and interpolated bicubically, without antialiasing, to others.
* Stochastic depth grows linearly from 0 in the first block to ``drop_path`` in the last.
* Everything that is multiplied, the convolution of the tokens included, starts from a truncated
  normal distribution of standard deviation 0.02, biases from 0.
* Slices with another number of channels than the transformer are averaged to one grey channel.

Shapes: ``B`` batch, ``C`` channels, ``D`` width, ``N`` tokens, ``h`` heads, ``t`` token size.
"""

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lamina.models import require
from lamina.models.layers.size import resize

_EPS = 1e-6  # of every layer normalisation
_BOTTLENECK = 256  # length of the vectors that DINO's directions are in


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """Settings of :class:`ViT`, in the order data meet them; by default those of ViT-S/16.

    Raises:
        ConfigError: Values out of range, all of them at once.
    """

    in_channels: int = 3
    """Channels of the image."""
    image_size: int = 224
    """Sides in pixels of the square images that the positions are learned for."""
    token_size: int = 16
    """Sides in pixels of the squares that become one token each."""
    width: int = 384
    """Length D of a token."""
    depth: int = 12
    """Number of blocks."""
    num_heads: int = 6
    """Attention heads of each block."""
    mlp_ratio: int = 4
    """Hidden units of each block's perceptron, in units of the width."""
    drop_path: float = 0.0
    """Probability that training leaves out a branch of the last block; 0.1 for DINO's student."""

    def __post_init__(self) -> None:
        require(
            self,
            in_channels=(self.in_channels >= 1, "at least 1"),
            token_size=(self.token_size >= 1, "at least 1"),
            image_size=(_is_multiple(self.image_size, self.token_size), "a multiple of token_size"),
            width=(_is_multiple(self.width, self.num_heads), "a multiple of num_heads"),
            depth=(self.depth >= 1, "at least 1"),
            num_heads=(self.num_heads >= 1, "at least 1"),
            mlp_ratio=(self.mlp_ratio >= 1, "at least 1"),
            drop_path=(0 <= self.drop_path < 1, "at least 0 and below 1"),
        )

    def build(self) -> "ViT":
        """Return the network with fresh weights."""
        return ViT(self)


def _is_multiple(number: int, unit: int) -> bool:
    return number >= 1 and number % max(unit, 1) == 0


def _initialise(network: nn.Module) -> None:
    for name, parameter in network.named_parameters():
        if parameter.dim() > 1:
            nn.init.trunc_normal_(parameter, std=0.02)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


class PatchEmbed(nn.Module):
    """Cuts the image into squares and projects each to a token (ViT, Eq. 1)."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        t = config.token_size
        self.proj = nn.Conv2d(config.in_channels, config.width, kernel_size=t, stride=t)

    def forward(self, image: Tensor) -> Tensor:
        """``(B, C, H, W) -> (B, D, H / t, W / t)``."""
        grid: Tensor = self.proj(image)
        return grid


class Attention(nn.Module):
    """Every token reads from all tokens, in several heads (ViT, Eq. 2 and appendix A)."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.proj = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, N, D) -> (B, N, D)``."""
        q, k, v = self._heads(x)
        read = F.scaled_dot_product_attention(q, k, v)
        projected: Tensor = self.proj(read.transpose(1, 2).flatten(2))
        return projected

    def first_row(self, x: Tensor) -> Tensor:
        """Return the share the first token reads of each: ``(B, N, D) -> (B, h, N)``, float32."""
        q, k, _ = self._heads(x)
        first = q[:, :, :1] * q.shape[-1] ** -0.5
        scores: Tensor = (first @ k.transpose(-2, -1)).squeeze(2)
        return scores.softmax(dim=-1, dtype=torch.float32)

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(B, N, D)`` -> queries, keys, values, each ``(B, h, N, D / h)``."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v


class MLP(nn.Module):
    """The perceptron that each token passes through on its own (ViT, Eq. 3)."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        hidden = config.mlp_ratio * config.width
        self.fc1 = nn.Linear(config.width, hidden)
        self.fc2 = nn.Linear(hidden, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, N, D) -> (B, N, D)``."""
        projected: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return projected


class Block(nn.Module):
    """Attention, then perceptron, each normalised before and added after (ViT, Eq. 2-3).

    In training each sample goes without a branch at probability ``drop_path``; the branches that
    stay are scaled up for it (Huang et al.: *Deep Networks with Stochastic Depth*, ECCV 2016).
    """

    def __init__(self, config: ViTConfig, drop_path: float) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(config.width, eps=_EPS)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.width, eps=_EPS)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, N, D) -> (B, N, D)``."""
        x = x + self._sometimes(self.attn(self.norm1(x)))
        return x + self._sometimes(self.mlp(self.norm2(x)))

    def _sometimes(self, branch: Tensor) -> Tensor:
        kept = branch.new_ones(branch.shape[0], 1, 1)
        return branch * F.dropout(kept, self.drop_path, self.training)


class ViT(nn.Module):
    """The transformer. Sizes of images must be multiples of the token size."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        side = config.image_size // config.token_size
        self.cls_token = nn.Parameter(torch.empty(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + side**2, config.width))
        self.patch_embed = PatchEmbed(config)
        last = max(config.depth - 1, 1)
        rates = (config.drop_path * block / last for block in range(config.depth))
        self.blocks = nn.ModuleList(Block(config, rate) for rate in rates)
        self.norm = nn.LayerNorm(config.width, eps=_EPS)
        _initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """``(B, in_channels, H, W)`` -> the CLS token after the last normalisation, ``(B, D)``.

        Raises:
            ValueError: A size is no multiple of the token size.
        """
        x = self._embed(image)
        for block in self.blocks:
            x = block(x)
        feature: Tensor = self.norm(x[:, 0])
        return feature

    def attention(self, image: Tensor) -> Tensor:
        """Return how much each head of the last block reads from each square for the CLS token.

        ``(B, in_channels, H, W) -> (B, h, H / t, W / t)`` in float32; the maps are positive, and
        each sums to 1 less what the CLS token reads from itself.

        Raises:
            ValueError: A size is no multiple of the token size.
        """
        x = self._embed(image)
        for block in self.blocks[:-1]:
            x = block(x)
        last = cast(Block, self.blocks[-1])
        row = last.attn.first_row(last.norm1(x))[..., 1:]
        return row.reshape(*row.shape[:2], image.shape[2] // self.config.token_size, -1)

    def _embed(self, image: Tensor) -> Tensor:
        """``(B, C, H, W) -> (B, 1 + H W / t^2, D)``, the CLS token first."""
        t = self.config.token_size
        if any(size % t for size in image.shape[2:]):
            raise ValueError(f"image size {tuple(image.shape[2:])} must be multiples of {t}.")
        grid = self.patch_embed(image)
        tokens = (grid + self._positions(grid.shape[2:])).flatten(2).transpose(1, 2)
        first = (self.cls_token + self.pos_embed[:, :1]).expand(image.shape[0], -1, -1)
        return torch.cat([first, tokens], dim=1)

    def _positions(self, size: torch.Size) -> Tensor:
        """Return the positions of a grid of squares, ``(1, D, *size)``."""
        side = self.config.image_size // self.config.token_size
        learned = self.pos_embed[:, 1:].transpose(1, 2).reshape(1, -1, side, side)
        if learned.shape[2:] == size:
            return learned
        return F.interpolate(learned, size=size, mode="bicubic")


class DINOHead(nn.Module):
    """Turns features into K scores, compared by the DINO loss (DINO, section 3.1).

    A perceptron of three layers, then cosines between its outputs and K learned directions.

    Args:
        width: Length of a feature.
        num_outputs: Scores K.
        hidden: Units of the two hidden layers.
    """

    def __init__(self, width: int, num_outputs: int, *, hidden: int = 2048) -> None:
        super().__init__()
        first, second = nn.Linear(width, hidden), nn.Linear(hidden, hidden)
        self.mlp = nn.Sequential(
            first, nn.GELU(), second, nn.GELU(), nn.Linear(hidden, _BOTTLENECK)
        )
        self.last_layer = nn.Linear(_BOTTLENECK, num_outputs, bias=False)
        _initialise(self)

    def forward(self, feature: Tensor) -> Tensor:
        """``(B, width) -> (B, K)``, each score between -1 and 1."""
        # Only the direction of a weight counts, as if its magnitude were fixed at 1.
        return F.linear(F.normalize(self.mlp(feature)), F.normalize(self.last_layer.weight))


@torch.no_grad()
def attention_maps(
    vit: ViT,
    image: Tensor,
    size: tuple[int, int],
    *,
    vit_size: int = 256,
    upsample: Literal["nearest", "bilinear"] = "nearest",
) -> Tensor:
    """Return the maps that DAI-Net reads: ``(B, C, H, W)`` slices -> ``(B, h, *size)`` in [0, 1].

    Each map of each slice is stretched to [0, 1]; one that is the same everywhere becomes 0.

    Args:
        vit: In evaluation mode.
        image: Slices, normalised as those that ``vit`` was trained on.
        size: Of the maps, in pixels, in array order: that of the slices the network will see.
        vit_size: Sides to which slices are resized for ``vit``.
        upsample: How maps are brought to ``vit_size``.

    Raises:
        ValueError: ``vit_size`` is no multiple of the token size.
    """
    x = resize(image, torch.Size((vit_size, vit_size)))
    if x.shape[1] != vit.config.in_channels:
        x = x.mean(dim=1, keepdim=True).expand(-1, vit.config.in_channels, -1, -1)
    maps = F.interpolate(vit.attention(x), size=x.shape[2:], mode=upsample)
    maps = F.interpolate(maps, size=size, mode="bilinear", antialias=True)
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    spread = high - low
    # Rounding makes a map that is the same everywhere differ in its last digits.
    return torch.where(spread > 1e-5 * high, (maps - low) / spread, 0.0)
