"""A torch module as a network of arrays."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import convert_conv3d_weight_memory_format

from lamina.models.accelerate import for_inference, keep_freed_memory


class TorchNetwork:
    """Runs a module on arrays, without gradients.

    Windows of volumes reach it channels-last, which a CPU computes twice as fast.

    Args:
        module: ``(B, C, *S) -> (B, K, *S)`` logits; in evaluation mode, on ``device``.
        device: Where it is.
        bf16: Whether what torch holds to be safe is computed in bfloat16.
    """

    def __init__(
        self, module: Callable[[Tensor], Tensor], device: str = "cpu", *, bf16: bool = False
    ) -> None:
        self.module = module
        self.device = torch.device(device)
        self.bf16 = bf16

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits of a batch, float32.

        Raises:
            MemoryError: They do not fit into the device's memory.
        """
        try:
            return self._run(batch)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).partition("\n")[0]
        # Beyond the block above, what the network had computed is given back.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        raise MemoryError(reason)

    def on_cpu(self) -> "TorchNetwork | None":
        """Move the module to the CPU; ``None`` where it is there already."""
        if self.device.type == "cpu" or not isinstance(self.module, nn.Module):
            return None
        return TorchNetwork(self.module.to("cpu"), bf16=self.bf16)

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16),
        ):
            # A copy: NumPy calls mirrored axes of one voxel contiguous, torch does not take them.
            seen = torch.from_numpy(batch.copy()).to(self.device)
            if seen.ndim == 5:
                seen = seen.contiguous(memory_format=torch.channels_last_3d)
            logits: NDArray[np.float32] = self.module(seen).float().contiguous().cpu().numpy()
            return logits


def fast_network(
    module: nn.Module, device: str = "cpu", *, bf16: bool = False, ram_bytes: float | None = None
) -> TorchNetwork:
    """Return a module as a network of arrays, in the form that is fastest where it is to run.

    Args:
        module: As above, on the CPU; it may be changed.
        device: Where to run it.
        bf16: Whether to compute in bfloat16; for GPUs, and processors that have it.
        ram_bytes: The memory granted; where there is a limit, what is freed is given back at once.
    """
    if device != "cpu":
        module = convert_conv3d_weight_memory_format(module, torch.channels_last_3d)
        return TorchNetwork(module.to(device), device, bf16=bf16)
    if ram_bytes is None:
        keep_freed_memory()
    return TorchNetwork(for_inference(module, bfloat16=bf16))


def is_out_of_memory(error: RuntimeError) -> bool:
    """Tell a lack of memory from other faults; only torch's own allocator of GPUs says it by class.

    The processor's tells it in words, and so do CUDA's libraries, which fetch memory beside torch.
    """
    told = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in told)
