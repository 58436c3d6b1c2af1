"""A trained model in memory: loaded for a device and a backend, ready for use from Python."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lamina.bundle import Bundle, build_network, load_bundle
from lamina.data.case import Case
from lamina.errors import BundleError, ConfigError, GeometryError
from lamina.export.backends import backend_of
from lamina.export.graphs import graphs_of
from lamina.export.targets import Network
from lamina.files import sha256
from lamina.folders.bundle import find_bundle
from lamina.geometry import affine_from
from lamina.inference.attention_maps import carried_maps
from lamina.inference.backend import fast_network, is_out_of_memory
from lamina.inference.postprocess import Step, steps_from
from lamina.inference.predictor import Predictor
from lamina.inference.sparing import Sparing
from lamina.training.device import chosen_device, has_bf16, require_device
from lamina.volume import Volume

log = logging.getLogger(__name__)

_WINDOWS_ON_GPU = 4
"""Windows per call of the network where more of them at a time are quicker."""


@dataclass(frozen=True)
class Model:
    """A trained model in memory, ready for use from Python."""

    bundle: Bundle
    predictor: Predictor
    backend: str = "torch"
    """What runs the network."""

    def predict(self, image: str | Path | Volume, *, pixel_size: float | None = None) -> Volume:
        """Segment a scan, given as a file or a volume.

        Args:
            image: The scan.
            pixel_size: Side of a pixel in mm, of a picture that does not tell it.

        Returns:
            Label map ``(1, *S)`` on the scan's own grid, with the values of the training labels.

        Raises:
            LaminaError: The scan cannot be read or does not fit the model.
        """
        stored = image
        if not isinstance(stored, Volume):
            case = Case(case_id="scan", group="", images=(Path(stored),))
            stored = case.read_image(self.bundle.plan.channels)
        sized = stored if pixel_size is None else stored.sized((pixel_size, pixel_size))
        return self.predictor(sized).laid_on(stored)

    def __call__(self, array: NDArray[Any], *, spacing: Sequence[float]) -> NDArray[Any]:
        """Segment an array without files.

        Args:
            array: ``(C, *S)``, or ``(*S)`` for one channel, axes running as RAS+.
            spacing: Voxel size in mm along each spatial axis.

        Returns:
            Label map ``(*S)`` with the values of the training labels.

        Raises:
            GeometryError: Array and spacing have different numbers of axes.
            LaminaError: The array does not fit the model.
        """
        channels = array[None] if array.ndim == len(spacing) else array
        if channels.ndim != len(spacing) + 1:
            raise GeometryError(
                f"array of shape {array.shape} and spacing {tuple(spacing)} do not match; "
                "one spacing per spatial axis is needed."
            )
        found = self.predictor(Volume(channels, affine_from(spacing), "array"))
        return np.asarray(found.array[0])


def load(
    path: str | Path,
    *,
    device: str | None = None,
    backend: str = "torch",
    precision: Literal["fp32", "bf16"] = "fp32",
    resample_oblique: bool = False,
    tta: bool = False,
    ram_bytes: float | None = None,
) -> Model:
    """Load a trained model.

    Where torch runs it on a CPU without ``ram_bytes``, glibc is asked to keep up to 2 GB of freed
    memory for the rest of this process, whoever freed it: fetching it anew takes longer than most
    operators (:func:`lamina.models.accelerate.keep_freed_memory` takes that back).

    Args:
        path: A ``.lamina`` file, a run folder, or the name of a shipped model.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...; a GPU if there is one by default.
        backend: What runs the network: ``"torch"``; ``"onnx"`` or ``"openvino"``, to which it is
            exported once and kept in the user's cache folder; or ``"auto"``, the one of them that
            is installed and needs least time for a window here.
        precision: ``"bf16"`` is about twice as fast on processors and GPUs that have it, at
            slightly different borders; not with ``"onnx"``.
        resample_oblique: Whether scans whose axes are not at right angles are resampled, and their
            segmentation brought back, rather than refused.
        tta: Whether the mean over the mirror images that the plan allows is taken: better by a
            little, and slower by as many times as there are images.
        ram_bytes: The most memory that the process may hold while it segments; a scan that would
            take more is refused.

    Raises:
        BundleError: The file is missing, damaged, altered or none of Lamina's, or the folder holds
            no model.
        TrainingError: The run's best checkpoint is damaged.
        ConfigError: The device is not here, or the backend is unknown or not for it, or the
            precision is unknown.
        ExportError: The network cannot be exported to the backend.
        FileError: The export cannot be kept in the user's cache folder.
    """
    if precision not in ("fp32", "bf16"):
        raise ConfigError(f"precision {precision!r}: must be fp32 or bf16.")
    chosen = chosen_device(device)
    require_device(chosen)
    file = find_bundle(Path(path))
    bundle = load_bundle(file)
    used, exported = backend_of(
        backend,
        bundle,
        lambda: graphs_of(bundle),
        model_sha256=sha256(file),
        device=chosen,
        precision=precision,
        threads=torch.get_num_threads(),
        ram_bytes=ram_bytes,
    )

    def predictor(on: str) -> Predictor:
        return Predictor(
            network=Sparing(exported) if exported else _in_torch(bundle, on, precision, ram_bytes),
            plan=bundle.plan,
            sw_batch_size=None if on == "cpu" else _WINDOWS_ON_GPU,
            resample_oblique=resample_oblique,
            maps=carried_maps(bundle, on),
            postprocessing=_postprocessing(bundle),
            tta=tta,
            ram_bytes=ram_bytes,
            threads=torch.get_num_threads(),
        )

    return Model(bundle, _where_it_fits(predictor, chosen), used)


def _where_it_fits(predictor: Callable[[str], Predictor], device: str) -> Predictor:
    """Return a predictor on a device, or on the CPU where the device has no room for its weights.

    Windows that do not fit are another matter, which :class:`Sparing` sees to.
    """
    try:
        return predictor(device)
    except RuntimeError as error:
        if device == "cpu" or not is_out_of_memory(error):
            raise
        log.warning("%s; going on on the CPU, which takes longer.", str(error).partition("\n")[0])
    return predictor("cpu")


def _in_torch(bundle: Bundle, device: str, precision: str, ram_bytes: float | None) -> Network:
    bf16 = precision == "bf16"
    if bf16 and device == "cpu" and not has_bf16():
        log.warning("This processor only imitates bf16; --precision fp32 is quicker here.")
    network = fast_network(build_network(bundle), device, bf16=bf16, ram_bytes=ram_bytes)
    return Sparing(network, network.on_cpu)


def _postprocessing(bundle: Bundle) -> tuple[Step, ...]:
    try:
        return steps_from(bundle.postprocessing, bundle.plan.labels)
    except ConfigError as error:
        raise BundleError(f"{bundle.source}: {error}") from error
