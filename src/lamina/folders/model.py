"""A trained model in memory: loaded for a device and a backend, ready for use from Python."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from lamina.bundle import Bundle, build_network, load_bundle
from lamina.data.plan import Plan
from lamina.data.scans import scan_of
from lamina.errors import BundleError, ConfigError, GeometryError
from lamina.export.backends import backend_of
from lamina.export.graphs import graphs_of
from lamina.export.targets import Network
from lamina.files import sha256
from lamina.folders.bundle import find_bundle
from lamina.geometry import Affine, affine_along, affine_from
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

    def predict(self, *images: str | Path | Volume, pixel_size: float | None = None) -> Volume:
        """Segment a scan: one file or volume that holds all channels, or one file per channel.

        Args:
            images: The files, the folder of a DICOM series, or the volume. Of files that are called
                ``x_0000``, ``x_0001``, ..., the first alone brings the others along.
            pixel_size: Side of a pixel in mm, of a picture that does not tell it.

        Returns:
            Label map ``(1, *S)`` on the scan's own grid, with the values of the training labels.

        Raises:
            LaminaError: The scan cannot be read or does not fit the model.
        """
        stored = _read(images, self.bundle.plan.channels)
        sized = stored if pixel_size is None else stored.sized((pixel_size, pixel_size))
        return self.predictor(sized).laid_on(stored)

    def __call__(self, array: ArrayLike, *, spacing: Sequence[float] | None = None) -> NDArray[Any]:
        """Segment an array without files.

        Args:
            array: ``(C, *S)``, or ``(*S)`` for one channel. Axes run as RAS+; for a model in pixels
                as in a picture, columns from the left before rows from the top.
            spacing: Voxel size in mm along each spatial axis; none for a model in pixels.

        Returns:
            Label map ``(*S)`` with the values of the training labels.

        Raises:
            ConfigError: It is no array of real numbers that NumPy can take.
            GeometryError: It has other axes than the model's scans, or the spacing is not one
                length per axis, or of the other unit.
            LaminaError: The array does not fit the model.
        """
        plan, voxels = self.bundle.plan, _real(array)
        channels = voxels[None] if voxels.ndim == plan.spatial_dims else voxels
        if channels.ndim != plan.spatial_dims + 1:
            raise GeometryError(
                f"array: has shape {voxels.shape}; the model needs {plan.spatial_dims} spatial "
                "axes, and before them one of channels if there are several.",
                remedy="Give one scan at a time, without an axis for a batch.",
            )
        image = Volume(channels, _affine_of(spacing, plan), "array", plan.unit)
        return np.asarray(self.predictor(image).array[0])


def _read(images: Sequence[str | Path | Volume], channels: tuple[str, ...]) -> Volume:
    volumes = [image for image in images if isinstance(image, Volume)]
    files = [image for image in images if not isinstance(image, Volume)]
    if not volumes:
        return scan_of(files, len(channels)).read_image(channels)
    if len(images) > 1:
        raise ConfigError(
            f"images: a volume among {len(images)}; it must stand alone.",
            remedy="Give one that holds all channels, or files.",
        )
    return volumes[0]


def _real(array: ArrayLike) -> NDArray[Any]:
    """Return an array of real numbers, after checking that it is one."""
    try:
        voxels = np.asarray(array)
    except (ValueError, TypeError, RuntimeError) as error:  # ragged lists, torch's own kinds
        fault = f"cannot be taken as an array: {error}"
    else:
        if voxels.dtype.kind in "biuf":
            return voxels
        fault = f"holds {voxels.dtype}; real numbers are needed"
    remedy = "Give a NumPy array of real numbers, or tensor.detach().float().cpu()."
    raise ConfigError(f"array: {fault.rstrip('.')}.", remedy=remedy)


def _affine_of(spacing: Sequence[float] | None, plan: Plan) -> Affine:
    """Return where the voxels of an array lie, after checking that the spacing is of the unit."""
    if plan.unit == "px":
        if spacing is not None:
            raise GeometryError(
                f"spacing = {spacing}: the model measures in pixels.", remedy="Leave it out."
            )
        return affine_along("LP", (1.0,) * plan.spatial_dims)
    lengths = np.array(() if spacing is None else spacing, np.float64)
    if lengths.shape != (plan.spatial_dims,) or not ((lengths > 0) & (lengths < np.inf)).all():
        raise GeometryError(
            f"spacing = {spacing}: the model measures in mm.",
            remedy=f"Give {plan.spatial_dims} lengths above 0, one per spatial axis.",
        )
    return affine_from(lengths.tolist())


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
