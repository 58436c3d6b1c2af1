"""U-Nets that MONAI builds: its own, Attention U-Net, U-Net++, and nnU-Net's network.

Each configuration names its paper. Where MONAI's networks differ from the papers':

* Attention U-Net upsamples by transposed convolutions, and its gates look at maps of one size.
* U-Net++ normalises case by case; with deep supervision its four heads are all of full size.
* nnU-Net plans its strides and kernels for every dataset. Here all stages halve all axes.

Shapes: ``B`` batch, ``C`` channels, ``*S`` two or three spatial axes in array order.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from lamina.models import Constraints, preset
from lamina.models.monai_networks import MonaiConfig
from lamina.models.published import Published


@dataclass(frozen=True, kw_only=True)
class StagedConfig(MonaiConfig):
    """Settings of a U-Net with stages of chosen widths."""

    _fewest_stages: ClassVar[int] = 2

    channels: tuple[int, ...]
    """Widths of the stages; each stage has half the size of the one before."""

    @property
    def size_divisor(self) -> int:
        """A factor of two for every stage but the first."""
        return 1 << (len(self.channels) - 1)

    def _constraints(self) -> Constraints:
        fit = len(self.channels) >= self._fewest_stages and min(self.channels) >= 2
        return {"channels": (fit, f"at least {self._fewest_stages} widths of 2 or more")}

    @property
    def _strides(self) -> tuple[int, ...]:
        return (2,) * (len(self.channels) - 1)


@dataclass(frozen=True, kw_only=True)
class MonaiUNetConfig(StagedConfig):
    """MONAI's own U-Net: strided convolutions, residual units, batch normalisation.

    Kerfoot et al.: *Left-Ventricle Quantification Using Residual U-Net*, STACOM 2018.
    """

    channels: tuple[int, ...] = (16, 32, 64, 128, 256)
    """Widths of the stages, by default those of MONAI's tutorials."""
    num_res_units: int = 2
    """Convolutions of each residual unit; 0 for plain stages of one convolution."""

    def _constraints(self) -> Constraints:
        units = {"num_res_units": (self.num_res_units >= 0, "at least 0")}
        return super()._constraints() | units

    def _network(self) -> nn.Module:
        return self._monai(
            "UNet",
            channels=self.channels,
            strides=self._strides,
            num_res_units=self.num_res_units,
            norm="batch",
        )


@dataclass(frozen=True, kw_only=True)
class AttentionUNetConfig(StagedConfig):
    """U-Net whose skips are gated by the decoder, with batch normalisation.

    Oktay et al.: *Attention U-Net: Learning Where to Look for the Pancreas*, MIDL 2018.
    """

    channels: tuple[int, ...] = (64, 128, 256, 512, 1024)
    """Widths of the stages, by default U-Net's."""

    def _network(self) -> nn.Module:
        network = self._monai("AttentionUnet", channels=self.channels, strides=self._strides)
        for name, gate in network.named_modules():
            if name.endswith(".psi.0.conv"):
                # The normalisation behind it takes off this one number: its gradient is zero.
                gate.bias = None
        return network


@dataclass(frozen=True, kw_only=True)
class UNetPlusPlusConfig(StagedConfig):
    """U-Net with shallower decoders nested inside the deepest.

    Zhou et al.: *UNet++: Redesigning Skip Connections to Exploit Multiscale Features in Image
    Segmentation*, TMI 2020.
    """

    channels: tuple[int, ...] = (32, 64, 128, 256, 512)
    """Widths of the five stages; each stage has half the size of the one before."""
    deep_supervision: bool = True
    """Have a head on every nested decoder and return the logits of all four in training."""

    def _constraints(self) -> Constraints:
        fit = len(self.channels) == 5 and min(self.channels) >= 2
        return {"channels": (fit, "five widths of 2 or more")}

    def _network(self) -> nn.Module:
        network = self._monai(
            "BasicUNetPlusPlus",
            features=(*self.channels, self.channels[0]),
            deep_supervision=self.deep_supervision,
        )
        if not self.deep_supervision:
            for depth in (1, 2, 3):
                network.get_submodule(f"final_conv_0_{depth}").requires_grad_(False)
        return _DeepestFirst(network)


class _DeepestFirst(nn.Module):
    """Turns round the list of logits that MONAI's U-Net++ returns, or keeps the last."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """``(B, C, *S)`` -> logits ``(B, num_classes, *S)``, in training those of all heads."""
        *shallower, deepest = self.network(x)
        return [deepest, *reversed(shallower)] if self.training and shallower else deepest


@dataclass(frozen=True, kw_only=True)
class DynUNetConfig(StagedConfig):
    """nnU-Net's network: leaky ReLU, instance normalisation, deep supervision.

    Isensee et al.: *nnU-Net: a self-configuring method for deep learning-based biomedical image
    segmentation*, Nature Methods 2021. Stages of one width are the idea of Celaya et al.:
    *PocketNet: A Smaller Neural Network for Medical Image Analysis*, TMI 2023.
    """

    _fewest_stages: ClassVar[int] = 4

    channels: tuple[int, ...] = (32, 64, 128, 256, 320)
    """Widths of the stages, by default those that nnU-Net plans for patches of 96 voxels."""
    deep_supervision: bool = True
    """Have heads on coarser stages, too, all but two, and return their logits in training."""

    def _network(self) -> nn.Module:
        network: Any = self._monai(
            "DynUNet",
            kernel_size=[3] * len(self.channels),
            strides=(1, *self._strides),
            upsample_kernel_size=self._strides,
            filters=self.channels,
            deep_supervision=self.deep_supervision,
            deep_supr_num=len(self.channels) - 3,
        )
        coarser = network.deep_supervision_heads if self.deep_supervision else ()
        return _NNUNet(
            encoder=[network.input_block, *network.downsamples, network.bottleneck],
            decoder=network.upsamples,
            heads=[network.output_block, *coarser],
        )


class _NNUNet(nn.Module):
    """The blocks of MONAI's DynUNet, whose own forward pass would keep the heads' last logits."""

    def __init__(
        self, *, encoder: Iterable[nn.Module], decoder: nn.ModuleList, heads: Iterable[nn.Module]
    ) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(encoder)
        self.decoder = decoder
        self.heads = nn.ModuleList(heads)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """``(B, C, *S)`` -> logits ``(B, num_classes, *S)``, in training those of all heads."""
        encoded = []
        for stage in self.encoder:
            x = stage(x)
            encoded.append(x)
        decoded = [encoded.pop()]
        for stage in self.decoder:
            decoded.append(stage(decoded[-1], encoded.pop()))
        heads = self.heads if self.training else self.heads[:1]
        logits = [head(x) for head, x in zip(heads, reversed(decoded), strict=False)]
        return logits if len(logits) > 1 else logits[0]


@preset("monai_unet")
def monai_unet(in_channels: int, num_classes: int) -> MonaiUNetConfig:
    """Return the network of MONAI's tutorials: 4,808,917 weights for 1 channel and 2 classes."""
    return MonaiUNetConfig(in_channels=in_channels, num_classes=num_classes)


@preset(
    "attention_unet",
    Published(
        where="LGMSNet, Table 1, Atten U-Net",
        in_channels=3,
        num_classes=1,
        size=(256, 256),
        parameters="34.87 M",
        macs="66.63 G",
        note="The paper's is another implementation, with two convolutions in each decoder stage.",
    ),
)
def attention_unet(in_channels: int, num_classes: int) -> AttentionUNetConfig:
    """Return the network for images: 31,740,333 weights for 3 channels and 1 class."""
    return AttentionUNetConfig(in_channels=in_channels, num_classes=num_classes, spatial_dims=2)


@preset(
    "unetpp",
    Published(
        where="LGMSNet, Table 1, U-Net++",
        in_channels=3,
        num_classes=1,
        size=(256, 256),
        parameters="26.90 M",
        macs="37.62 G",
        note="The paper does not say which configuration; this one has the authors' widths.",
    ),
)
def unetpp(in_channels: int, num_classes: int) -> UNetPlusPlusConfig:
    """Return the network for images: 9,119,332 weights for 3 channels and 1 class."""
    return UNetPlusPlusConfig(in_channels=in_channels, num_classes=num_classes, spatial_dims=2)


@preset(
    "dynunet",
    Published(
        where="GLIMS, Table 5, nnU-Net",
        in_channels=1,
        num_classes=14,
        size=(96, 96, 96),
        parameters="19.07 M",
        macs="412.65 G",
        note="The paper gives no plan. Its operations seem to be two for each multiply-add.",
    ),
)
def dynunet(in_channels: int, num_classes: int) -> DynUNetConfig:
    """Return the network for volumes: 16,546,762 weights for 1 channel and 14 classes."""
    return DynUNetConfig(in_channels=in_channels, num_classes=num_classes)


@preset("dynunet_pocket")
def dynunet_pocket(in_channels: int, num_classes: int) -> DynUNetConfig:
    """Return the network of one width: 694,796 weights for 1 channel and 2 classes."""
    return DynUNetConfig(in_channels=in_channels, num_classes=num_classes, channels=(34,) * 5)
