"""The optimisers that settings can name, over a network's parameters."""

from collections.abc import Iterable

from torch.nn import Parameter
from torch.optim import SGD, Adam, AdamW, Optimizer

from lamina.training.config import Optimiser


def build_optimiser(
    settings: Optimiser, parameters: Iterable[Parameter], *, fused: bool
) -> Optimizer:
    """Return the optimiser that ``settings`` describe.

    All of them pass over a parameter that has no gradient, its memory untouched.

    Args:
        settings: Kind, learning rate and the rest.
        parameters: What is to be learnt.
        fused: Whether a step is one pass over all parameters: quicker, but it unscales gradients
            by itself.
    """
    if settings.kind == "sgd":
        return SGD(
            parameters,
            lr=settings.lr,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
            weight_decay=settings.weight_decay,
            fused=fused,
        )
    kind = AdamW if settings.kind == "adamw" else Adam
    return kind(
        parameters,
        lr=settings.lr,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        fused=fused,
    )
