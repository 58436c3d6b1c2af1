"""Where networks run, the processor or a GPU that is really there, and in which number format."""

from typing import TYPE_CHECKING, Any, Literal

from lamina.errors import ConfigError

if TYPE_CHECKING:
    from lamina.training.config import Precision

LIGHTNING_PRECISION: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}
"""Number formats as Lightning is told them."""


def chosen_device(device: str | None) -> str:
    """Return the device asked for, or a GPU if there is one.

    Raises:
        ConfigError: No device is called so.
    """
    import torch

    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = device.partition(":")
    if device == "cpu" or (kind == "cuda" and (number.isdecimal() or device == kind)):
        return device
    raise ConfigError(
        f"device {device!r}: no such device.", remedy="Say cpu, cuda, or cuda:1 for the second GPU."
    )


def is_here(device: str) -> bool:
    """Tell whether this machine has the device, and torch can use it."""
    return device == "cpu" or int(device.partition(":")[2] or 0) < _num_gpus()


def require_device(device: str, remedy: str = "Take the device cpu.") -> None:
    """Refuse a GPU that this machine does not have.

    Raises:
        ConfigError: It is not there, or torch was installed without support for it.
    """
    if not is_here(device):
        count = _num_gpus()
        found = f"torch finds {count} GPU{'' if count == 1 else 's'} here"
        raise ConfigError(f"device {device}: {found}.", remedy=remedy)


def placement(device: str) -> dict[str, Any]:
    """Return the device as Lightning is told it: ``{"accelerator": "cuda", "devices": [1]}``."""
    if device == "cpu":
        return {"accelerator": "cpu", "devices": 1}
    return {"accelerator": "cuda", "devices": [int(device.partition(":")[2] or 0)]}


def resolve_precision(precision: "Precision", device: str) -> "Precision":
    """Return the number format that ``auto`` stands for on a device.

    Raises:
        ConfigError: It is ``fp16`` and the device is no GPU.
    """
    import torch

    gpu = device != "cpu"
    if precision == "fp16" and not gpu:
        raise ConfigError("precision = 'fp16': needs a GPU.", remedy="Use bf16, fp32 or auto.")
    if precision != "auto":
        return precision
    if not gpu:
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def has_bf16() -> bool:
    """Tell whether the processor multiplies bf16 numbers by itself."""
    import torch

    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _num_gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
