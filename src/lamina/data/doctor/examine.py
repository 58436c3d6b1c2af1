"""Look at one case and keep the little that is needed to compare it with all others."""

import hashlib
import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.data.case import Case
from lamina.data.doctor import Finding, Severity
from lamina.data.doctor.facts import (
    PERCENTILES,
    THUMBNAIL,
    WHOLE_TOLERANCE,
    ChannelFacts,
    Examination,
    ImageFacts,
    LabelFacts,
)
from lamina.data.doctor.reading import label_colours, read_label_map
from lamina.data.doctor.slices import interruptions, lost_slices
from lamina.data.fingerprint import canonical
from lamina.data.slices import coarsest_axis
from lamina.errors import LaminaError
from lamina.geometry import spacing_of
from lamina.labels import LabelSet
from lamina.volume import Volume

_SAMPLES = 1_000_000
_MAX_VALUES = 1000
"""A map with more different values than this is no label map."""
_DOUBTS: dict[str, tuple[Severity, str, str]] = {
    "not at right angles": (
        "error",
        "header",
        "Prepare and predict with --resample-oblique, or resample it yourself.",
    ),
    "stored as JPEG": (
        "warning",
        "values",
        "Threshold the mask and save it as PNG.",
    ),
}
"""What a reader says -> how grave it is, for which check, and the remedy."""
_OTHER_DOUBT: tuple[Severity, str, str] = (
    "warning",
    "header",
    "Look at the scan in a viewer; correct its header if that is wrong.",
)


def examine(
    case: Case,
    *,
    labels: LabelSet | None = None,
    sided: Collection[int] = (),
    held_out: Collection[str] = (),
) -> Examination:
    """Read one case; what is wrong with it becomes part of the result, never an error.

    Args:
        case: Its files.
        labels: The values of structures that have names.
        sided: Label values whose position is wanted.
        held_out: Ids of the cases that lie in the test folder.
    """
    faults: list[Finding] = []
    with _heard(case.case_id, faults):
        image = _image(case, faults)
        label = _label(case, labels, sided, faults)
    return Examination(
        case=case,
        held_out=case.case_id in held_out,
        image=image,
        label=label,
        faults=tuple(faults),
    )


def unreadable(case: Case, file: str, error: LaminaError) -> Finding:
    """Turn an error into a finding."""
    return Finding(
        severity="error",
        check="unreadable",
        case=case.case_id,
        file=file,
        message=error.message.removeprefix(f"{file}: "),
        remedy=error.remedy or "Get the file again, or leave the case out.",
    )


@contextmanager
def _heard(case_id: str, faults: list[Finding]) -> Iterator[None]:
    """Take what readers warn of for findings instead of messages."""

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            file, _, message = record.getMessage().partition(": ")
            if any(fault.message == message for fault in faults):  # of the image and its label
                return
            severity, check, remedy = next(
                (doubt for said, doubt in _DOUBTS.items() if said in message), _OTHER_DOUBT
            )
            faults.append(
                Finding(
                    severity=severity,
                    check=check,
                    case=case_id,
                    file=file,
                    message=message,
                    remedy=remedy,
                )
            )

    logger, ear = logging.getLogger("lamina"), Ear(logging.WARNING)
    level, propagate = logger.level, logger.propagate
    logger.addHandler(ear)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(ear)
        logger.setLevel(level)
        logger.propagate = propagate


def _image(case: Case, faults: list[Finding]) -> ImageFacts | None:
    parts: list[Volume] = []
    for path in case.images:
        try:
            part = case.read_part(path)
            if parts:
                parts[0].check_grid_of(part)
            parts.append(part)
        except LaminaError as error:
            faults.append(unreadable(case, str(path), error))
    return _describe(parts) if len(parts) == len(case.images) else None


def _describe(parts: Sequence[Volume]) -> ImageFacts:
    first = parts[0]
    turn = canonical(first)
    affine = turn.affine(first.affine, first.spatial_shape)
    return ImageFacts(
        affine=first.affine,
        spatial_shape=first.spatial_shape,
        shape=tuple(first.spatial_shape[axis] for axis in turn.axes),
        spacing=spacing_of(affine, first.spatial_dims),
        unit=first.unit,
        orientation=first.orientation,
        dtype=str(np.result_type(*(part.array.dtype for part in parts))),
        lost_slices=_lost_slices(parts),
        channels=tuple(_channel(channel) for part in parts for channel in turn.apply(part.array)),
    )


def _lost_slices(parts: Sequence[Volume]) -> tuple[tuple[int, ...], ...]:
    if parts[0].spatial_dims < 3:
        return ()
    axis = coarsest_axis(parts[0].spacing)
    return tuple(lost_slices(channel, axis) for part in parts for channel in part.array)


def _channel(values: NDArray[Any]) -> ChannelFacts:
    good = np.isfinite(values)
    broken = int(values.size - np.count_nonzero(good))
    tame = values if not broken else np.where(good, values, 0)
    array = tame.astype(np.float32) + np.float32(0)  # which turns -0 into 0
    inside = values[good] if broken else values.ravel(order="K")
    drawn = inside[:: max(1, inside.size // _SAMPLES)]
    known = inside.size > 0
    return ChannelFacts(
        digest=_digest(array),
        broken=broken,
        size=int(values.size),
        low=float(inside.min()) if known else float("nan"),
        high=float(inside.max()) if known else float("nan"),
        percentiles=tuple(
            float(x) for x in (np.percentile(drawn, PERCENTILES) if known else [np.nan] * 7)
        ),
        step=_step(drawn),
        thumbnail=_thumbnail(array),
    )


def _step(values: NDArray[Any]) -> int:
    if values.dtype.kind == "f" and not (values == np.rint(values)).all():
        return 0
    return int(np.gcd.reduce(np.unique(values).astype(np.int64))) if values.size else 0


def _digest(array: NDArray[Any]) -> str:
    digest = hashlib.blake2b(str(array.shape).encode(), digest_size=16)
    for plane in array:
        digest.update(np.ascontiguousarray(plane).data)
    return digest.hexdigest()


def _thumbnail(array: NDArray[np.float32]) -> NDArray[np.float32]:
    small = array.astype(np.float64) if array.size < _SAMPLES else array
    side = THUMBNAIL[array.ndim]
    for axis, size in enumerate(array.shape):
        starts = np.arange(side) * size // side
        # Where two starts coincide, the axis is shorter than the thumbnail and a voxel is repeated.
        counts = np.maximum(1, np.diff(starts, append=size))
        wide = counts.reshape([-1 if i == axis else 1 for i in range(array.ndim)])
        small = np.add.reduceat(small, starts, axis=axis) / wide
    scale = small.std()
    return np.asarray((small - small.mean()) / (scale if scale > 0 else 1), np.float32)


def _label(
    case: Case, labels: LabelSet | None, sided: Collection[int], faults: list[Finding]
) -> LabelFacts | None:
    try:
        label = read_label_map(case, labels)
        colours = label_colours(case)
    except LaminaError as error:
        faults.append(unreadable(case, str(case.label), error))
        return None
    if label is None:
        return None
    found, counts = np.unique(label.array, return_counts=True)
    whole = np.rint(found)
    finite = bool(np.isfinite(found).all())
    deviation = float(np.abs(found - whole).max()) if finite else float("inf")
    known = deviation <= WHOLE_TOLERANCE and len(found) <= _MAX_VALUES
    values: dict[int, int] = {}
    countable = known and label.num_channels == 1
    for value, count in zip(whole if countable else [], counts, strict=False):
        values[int(value)] = values.get(int(value), 0) + int(count)
    wanted = sorted(values.keys() & set(sided))
    return LabelFacts(
        affine=label.affine,
        spatial_shape=label.spatial_shape,
        num_channels=label.num_channels,
        deviation=deviation if known or not finite else max(deviation, 0.5),
        counts=values,
        centres=_centres(label, wanted) if wanted else {},
        interruptions=_interruptions(label) if values else {},
        colours=colours,
        digest=_digest(canonical(label).apply(label.array).astype(np.float32)[0]),
    )


def _interruptions(label: Volume) -> dict[int, tuple[int, ...]]:
    if label.spatial_dims < 3:
        return {}
    return interruptions(_whole(label), coarsest_axis(label.spacing))


def _whole(label: Volume) -> NDArray[Any]:
    array: NDArray[Any] = label.array[0]
    return array if array.dtype.kind != "f" else np.asarray(np.rint(array))


def _centres(label: Volume, values: Sequence[int]) -> dict[int, tuple[float, ...]]:
    """Return the mean world position of each value, plane by plane to spare memory."""
    array = _whole(label)
    table = np.array(values)
    sums, counts = np.zeros((len(values), 4)), np.zeros(len(values))
    for axis in range(array.ndim):
        counts[:] = 0
        for k, plane in enumerate(np.moveaxis(array, axis, 0)):
            inside = plane[np.isin(plane, table)]
            here = np.bincount(np.searchsorted(table, inside), minlength=len(values))
            sums[:, axis] += k * here
            counts += here
    middles = sums / counts[:, None]
    middles[:, 3] = 1
    world = middles @ label.affine.T
    return {value: tuple(map(float, point[:3])) for value, point in zip(values, world, strict=True)}
