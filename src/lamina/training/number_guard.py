"""What is done about numbers that stay NaN or infinite."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from torch import Tensor

from lamina.errors import TrainingError
from lamina.files import atomic_path
from lamina.training.callbacks import RunState
from lamina.training.processes import together
from lamina.training.supervised import Supervised

log = logging.getLogger(__name__)

NOT_FINITE = "not_finite.safetensors"

_MAX_SKIPPED_IN_A_ROW = 25


class NumberGuard(Callback):
    """Answers numbers that stay NaN or infinite: by full precision, then by the end of the run.

    Args:
        folder: Where the batch that was last in vain is left for inspection.
        state: Of the run; changed with the precision.
        cases_of: Tells which cases the patches of a step are from.
    """

    def __init__(
        self, folder: Path, state: RunState, cases_of: Callable[[int], Sequence[str]]
    ) -> None:
        self.folder = folder
        self.state = state
        self.cases_of = cases_of

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Act when too many steps in a row were in vain.

        Raises:
            TrainingError: They were so in full precision.
        """
        assert isinstance(module, Supervised)
        times = module.skipped_in_a_row
        if times <= _MAX_SKIPPED_IN_A_ROW:
            return
        what = f"Loss or gradient was NaN or infinite {times} times in a row"
        if isinstance(trainer.precision_plugin, MixedPrecision):
            log.warning("%s; going on in fp32.", what)
            trainer.strategy.precision_plugin = Precision()
            self.state.precision = "fp32"
            module.skipped_in_a_row = 0
            return
        step = int(module.steps_done)
        batch = together(batch)
        if not trainer.is_global_zero:
            return  # the first process ends them all
        raise TrainingError(
            f"{what}; stopped at step {step}. Its patches are in {self._keep(batch, step - 1)}.",
            remedy="Look at them, or lower optimiser.lr; last.ckpt is intact.",
        )

    def _keep(self, batch: Sequence[Tensor], step: int) -> Path:
        from safetensors.torch import save

        names = ("image", "target")
        tensors = {n: t.cpu().contiguous() for n, t in zip(names, batch, strict=True)}
        about = {"step": str(step), "cases": ", ".join(self.cases_of(step))}
        with atomic_path(self.folder / NOT_FINITE) as part:
            part.write_bytes(save(tensors, about))  # save_file hides it from other users
        return self.folder / NOT_FINITE
