"""Transformers that MONAI builds: UNETR and Swin UNETR.

Each configuration names its paper. Where these networks differ from the papers', or those are open:

* UNETR's skips leave the transformer one layer later than the paper's: behind layers 4, 7 and 10.
* UNETR's position embeddings are for images of one size. For others they are interpolated.
* Swin UNETR's widest windows shrink to maps that are smaller.

Shapes: ``B`` batch, ``C`` channels, ``N`` tokens, ``*S`` two or three spatial axes in array order.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lamina.models import Constraints, preset
from lamina.models.layers.size import resize
from lamina.models.monai_networks import MonaiConfig
from lamina.models.published import Published

TOKEN_SIZE = 16  # of UNETR, in voxels along each axis


@dataclass(frozen=True, kw_only=True)
class UNETRConfig(MonaiConfig):
    """Vision transformer of twelve layers, four of which feed a convolutional decoder.

    Hatamizadeh et al.: *UNETR: Transformers for 3D Medical Image Segmentation*, WACV 2022.
    """

    size_divisor: ClassVar[int] = TOKEN_SIZE

    roi_size: int = 96
    """Side of the image that the position embeddings are made for, in voxels."""
    hidden_size: int = 768
    """Width of the tokens."""
    num_heads: int = 12
    """Heads of every attention."""
    feature_size: int = 16
    """Width of the finest decoder stage; each of the three coarser ones has twice the one before.
    """

    def _constraints(self) -> Constraints:
        fits = self.roi_size >= TOKEN_SIZE and self.roi_size % TOKEN_SIZE == 0
        divided = self.num_heads >= 1 and self.hidden_size % self.num_heads == 0
        return {
            "roi_size": (fits, f"a multiple of {TOKEN_SIZE}"),
            "hidden_size": (self.hidden_size >= 1 and divided, "a multiple of num_heads"),
            "feature_size": (self.feature_size >= 1, "at least 1"),
        }

    def _network(self) -> nn.Module:
        network = self._monai(
            "UNETR",
            img_size=self.roi_size,
            feature_size=self.feature_size,
            hidden_size=self.hidden_size,
            mlp_dim=4 * self.hidden_size,
            num_heads=self.num_heads,
        )
        for name, parameter in network.named_parameters():
            # MONAI's blocks can attend to other tokens as well; here they do not.
            parameter.requires_grad_("cross_attn" not in name)
        return _UNETR(network, grid=(self.roi_size // TOKEN_SIZE,) * self.spatial_dims)


class _UNETR(nn.Module):
    """MONAI's UNETR with a forward pass for every size."""

    def __init__(self, network: Any, grid: tuple[int, ...]) -> None:
        super().__init__()
        self.network = network
        self.grid = grid
        for block in network.vit.blocks:
            block.attn.use_flash_attention = True

    def forward(self, image: Tensor) -> Tensor:
        """``(B, C, *S)`` -> logits ``(B, num_classes, *S)``."""
        unetr: Any = self.network
        *shallower, deepest = self._encode(image)
        encoders = (unetr.encoder1, unetr.encoder2, unetr.encoder3, unetr.encoder4)
        decoders = (unetr.decoder2, unetr.decoder3, unetr.decoder4, unetr.decoder5)
        x = deepest  # (B, hidden_size, *S/16)
        stages = zip(encoders, decoders, (image, *shallower), strict=True)
        for encode, decode, source in reversed(list(stages)):
            x = decode(x, encode(source))  # (B, 128, *S/8), (B, 64, *S/4), (B, 32, *S/2)
        logits: Tensor = unetr.out(x)  # of (B, 16, *S)
        return logits

    def _encode(self, image: Tensor) -> list[Tensor]:
        """``(B, C, *S)`` -> four maps ``(B, hidden_size, *S/16)``, the deepest last."""
        vit: Any = self.network.vit
        patches = vit.patch_embedding.patch_embeddings(image)
        positions = vit.patch_embedding.position_embeddings.transpose(1, 2).unflatten(2, self.grid)
        tokens = (patches + resize(positions, patches.shape[2:])).flatten(2).transpose(1, 2)
        hidden = []
        for block in vit.blocks:
            tokens = block(tokens)
            hidden.append(tokens)
        chosen = (hidden[3], hidden[6], hidden[9], vit.norm(tokens))
        return [x.transpose(1, 2).unflatten(2, patches.shape[2:]) for x in chosen]


@dataclass(frozen=True, kw_only=True)
class SwinUNETRConfig(MonaiConfig):
    """Attention inside shifted windows, with a convolutional decoder.

    Hatamizadeh et al.: *Swin UNETR: Swin Transformers for Semantic Segmentation of Brain Tumors in
    MRI Images*, BrainLes 2021.
    """

    size_divisor: ClassVar[int] = 32

    window_size: int = 7
    """Side of the windows of attention, in tokens of two voxels at the finest stage."""
    depths: tuple[int, ...] = (2, 2, 2, 2)
    """Transformer layers of the four stages."""
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    """Heads of every attention in the four stages."""
    feature_size: int = 48
    """Width of the finest stage; each of the three coarser ones has twice that of the one before.
    """

    def _constraints(self) -> Constraints:
        fits = self.feature_size >= 12 and self.feature_size % 12 == 0
        heads_fit = all(
            n >= 1 and (self.feature_size << i) % n == 0 for i, n in enumerate(self.num_heads)
        )
        return {
            "window_size": (self.window_size >= 1, "at least 1"),
            "depths": (len(self.depths) == 4 and min(self.depths) >= 1, "four numbers from 1"),
            "num_heads": (len(self.num_heads) == 4 and heads_fit, "four divisors of the widths"),
            "feature_size": (fits, "a multiple of 12"),
        }

    def _network(self) -> nn.Module:
        with _LinspaceOnCPU():
            return self._monai(
                "SwinUNETR",
                window_size=self.window_size,
                depths=self.depths,
                num_heads=self.num_heads,
                feature_size=self.feature_size,
            )


class _LinspaceOnCPU(TorchFunctionMode):
    """Makes ``torch.linspace`` on the CPU: MONAI reads numbers off it, which "meta" has not."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        device = {"device": "cpu"} if func is torch.linspace else {}
        return func(*args, **{**(kwargs or {}), **device})


@preset(
    "unetr",
    Published(
        where="GLIMS, Table 5, UNETR",
        in_channels=1,
        num_classes=14,
        size=(96, 96, 96),
        parameters="92.49 M",
        macs="75.76 G",
        note="The paper gives neither channels nor classes; LGMSNet prints 92.61 M.",
    ),
)
def unetr(in_channels: int, num_classes: int) -> UNETRConfig:
    """Return the paper's network: 92,802,478 weights for 1 channel and 14 classes."""
    return UNETRConfig(in_channels=in_channels, num_classes=num_classes)


@preset(
    "swin_unetr",
    Published(
        where="GLIMS, Table 5, Swin UNETR",
        in_channels=1,
        num_classes=14,
        size=(96, 96, 96),
        parameters="62.83 M",
        macs="384.2 G",
        note="The paper gives neither channels nor classes, and 61.98 M in its text, as LGMSNet.",
    ),
)
def swin_unetr(in_channels: int, num_classes: int) -> SwinUNETRConfig:
    """Return the paper's network: 62,187,296 weights for 1 channel and 14 classes."""
    return SwinUNETRConfig(in_channels=in_channels, num_classes=num_classes)
