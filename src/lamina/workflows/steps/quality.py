"""What ``predict`` says of a scan beside its segmentation: sizes of structures, and flags."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.data.ranges import Ranges, ranges_of
from lamina.explain.quality import flags, sizes
from lamina.explain.uncertainty import Agreeing, views_of
from lamina.folders.model import Model
from lamina.inference.predictor import OnWindow, Predictor
from lamina.volume import Volume


@dataclass(frozen=True, kw_only=True, eq=False)
class CheckedModel:
    """A model whose views of a scan, where it takes several, are compared while it segments."""

    predictor: Predictor
    ranges: Ranges | None
    seer: Agreeing | None
    """``None`` where the model looks at a scan once."""

    @classmethod
    def of(cls, model: Model) -> "CheckedModel":
        """Check what a model says; what it predicts stays the same.

        Raises:
            ConfigError: The model's ranges are damaged.
        """
        predictor, ranges = model.predictor, ranges_of(model.bundle.training, model.bundle.plan)
        if not predictor.tta:
            return cls(predictor=predictor, ranges=ranges, seer=None)
        plan = predictor.plan
        seer = Agreeing(views_of([predictor.network], plan, tta=True), plan)
        compared = replace(predictor, network=seer, tta=False)
        return cls(predictor=compared, ranges=ranges, seer=seer)

    def segment(
        self,
        image: Volume,
        on_window: OnWindow | None = None,
        probabilities: NDArray[np.floating[Any]] | None = None,
    ) -> tuple[Volume, dict[str, Any]]:
        """Segment a scan, as the predictor does; return sizes and flags, too, as plain data."""
        if self.seer is not None:
            if self.predictor.ram_bytes is not None:
                self.predictor.predicted_memory(image)  # looks at a window that is of no scan
            self.seer.tally.take()
        segmentation = self.predictor(image, on_window, probabilities)
        plan = self.predictor.plan
        agreement = None if self.seer is None else self.seer.tally.take()
        found = flags(image, segmentation, plan, self.ranges, agreement)
        return segmentation, {
            "sizes": sizes(segmentation, plan.labels),
            "flags": None if found is None else [flag.as_dict() for flag in found],
        }
