"""torch.compile in training: taken where it works and makes a step faster.

Ansel et al.: *PyTorch 2: Faster Machine Learning Through Dynamic Python Bytecode Transformation and
Graph Compilation*, ASPLOS 2024.
"""

import logging
import time
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from lamina.training.supervised import Supervised

log = logging.getLogger(__name__)
_TRIALS = 3


class Compilation(Callback):
    """Compiles the network before the first step, and takes it back where that does not pay.

    Args:
        batch: Image ``(B, C, *S)`` and target ``(B, *S)`` to try it on, of the size of a step's.
    """

    def __init__(self, batch: tuple[Tensor, Tensor]) -> None:
        self.batch = batch

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Time steps without and with it; weights and statistics are left as they were."""
        network = pl_module.network
        kept = {name: value.clone() for name, value in network.state_dict().items()}
        plain_s = self._step_s(trainer, pl_module)
        network.compile()
        try:
            fused_s = self._step_s(trainer, pl_module)
        except RuntimeError as error:  # what torch makes of all that its compilers raise
            reason = f"it fails here ({type(error).__name__})"
        else:
            log.info("A step takes %.3g s, compiled %.3g s.", plain_s, fused_s)
            reason = "" if fused_s < plain_s else "steps are no faster"
        finally:
            network.load_state_dict(kept)
            network.zero_grad(set_to_none=True)
        if reason:
            network._compiled_call_impl = None
            log.warning("compile: %s; training goes on without it.", reason)

    def _step_s(self, trainer: Trainer, module: Supervised) -> float:
        """Return the seconds of the fastest forward and backward pass."""
        batch = self.batch[0].to(module.device), self.batch[1].to(module.device)
        taken = []
        for _ in range(_TRIALS):
            began = time.perf_counter()
            with trainer.precision_plugin.forward_context():
                loss = module.training_step(batch, 0)
            loss.backward()
            if module.device.type == "cuda":
                torch.cuda.synchronize(module.device)
            taken.append(time.perf_counter() - began)
        return min(taken)
