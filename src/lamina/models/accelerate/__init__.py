"""Networks made fast for prediction on a CPU: other operators, the same logits but for rounding.

The papers' files stay the definition, for training, for export and for the tests. A prediction
uses a copy of the network in which modules gave way to their fast forms: batch normalisations are
multiplied into convolutions, operators of one voxel run together on pieces that fit the cache, and
everything lies channels last.
"""

import torch
from torch import Tensor, nn

from lamina.models.accelerate import glims as glims
from lamina.models.accelerate import lightmedseg as lightmedseg
from lamina.models.accelerate.algebra import simplified
from lamina.models.accelerate.convolution import DilatedDepthwise, DirectConvolution
from lamina.models.accelerate.forms import fast
from lamina.models.accelerate.memory import keep_freed_memory
from lamina.models.accelerate.steps import Pointwise

__all__ = ["Accelerated", "for_inference", "keep_freed_memory", "simplified"]

_CONV = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_MULTIPLIES = (nn.Linear, *_CONV, Pointwise, DilatedDepthwise, DirectConvolution)


class Accelerated(nn.Module):
    """A network in its fast form, for a CPU and without gradients; images go through one by one."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """``(B, C, *S) -> (B, num_classes, *S)``, float32."""
        layout = torch.channels_last if image.dim() == 4 else torch.channels_last_3d
        images = image.to(self.dtype).split(1)
        with torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32):
            logits = [self.network(x.contiguous(memory_format=layout)) for x in images]
        return torch.cat(logits).float()


@torch.no_grad()
def for_inference(network: nn.Module, *, bfloat16: bool = False) -> Accelerated:
    """Return a copy of a network that predicts the same, only faster, on a CPU.

    Args:
        network: On the CPU; one of Lamina's, or an ensemble of them. It stays as it is.
        bfloat16: Whether maps and what is multiplied are of bfloat16; statistics are of float32
            all the same. Worth it where the processor multiplies in bfloat16.
    """
    network = fast(simplified(network))
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    for module in network.modules():
        if isinstance(module, _MULTIPLIES):
            module.to(dtype)
    return Accelerated(network, dtype)
