"""DICOM objects derived from a series: segmentations (SEG) and structure sets (RTSTRUCT).

What is written is read back before it is kept, and each structure's centre, extent and volume in
the patient are compared with those of the segmentation. Names of series are in messages; what the
files say about a patient never is.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lamina.errors import FileError, LaminaError
from lamina.files import atomic_path
from lamina.io.derived.anonymise import Pseudonyms, without_dates
from lamina.io.derived.contours import structure_set
from lamina.io.derived.measure import (
    Measure,
    compare,
    measure_contours,
    measure_mask,
    measure_seg,
)
from lamina.io.derived.seg import segmentation_object
from lamina.io.derived.segments import Producer, Segments, check_names, segments_of
from lamina.io.derived.source import Source, place_on, read_source
from lamina.io.dicom_quiet import unquoted
from lamina.labels import LabelSet
from lamina.volume import Volume

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["Kind", "Producer", "Pseudonyms", "check_series", "write_structures"]

Kind = Literal["seg", "labelmap", "rtstruct"]
"""SEG of one truth value per voxel and structure, SEG of one number per voxel, or RTSTRUCT."""


def write_structures(
    segmentation: Volume,
    labels: LabelSet,
    path: Path,
    *,
    kind: Kind,
    scan: Path,
    producer: Producer,
    series_uid: str = "",
    pseudonyms: Pseudonyms | None = None,
) -> None:
    """Write a segmentation of a DICOM series as a DICOM object, read it back, and compare.

    Args:
        segmentation: A label map ``(1, i, j, k)`` of file values, on the grid of the series.
        labels: What the values stand for. Regions are written too, except to a label map.
        path: The file.
        kind: What to write.
        scan: Folder or file of the series.
        producer: What made the segmentation.
        series_uid: As for :func:`lamina.io.read_volume`.
        pseudonyms: What to call patient and UIDs instead; without, the object is filed with the
            patient's own.

    Raises:
        FileError: The series or the file cannot be read or written, or the file does not hold what
            was segmented; it is not kept then.
        GeometryError: The series is no stack of slices, or the segmentation does not lie on it.
        LabelError: A value is not declared, or a name cannot be written.
    """
    source = read_source(scan, series_uid)
    check_names(labels)
    beside = place_on(source, segmentation)
    segments = segments_of(segmentation, labels, producer, regions=kind != "labelmap")
    known = source if pseudonyms is None else pseudonyms.source(source)
    with atomic_path(path) as part:
        written = _object(segments, known, kind, path)
        if pseudonyms is not None:
            without_dates(written)
        _save(written, part, path)
        found = _measured(part, kind, source, path)
        segmented = {name: measure_mask(mask, segmentation) for name, mask in segments.masks()}
        compare(segmented, found, beside, path)


def check_series(scan: Path, labels: LabelSet, series_uid: str = "") -> None:
    """Check, before anything is segmented, that structures of a series can be written.

    Raises:
        FileError, GeometryError, LabelError: As :func:`write_structures` would.
    """
    read_source(scan, series_uid)
    check_names(labels)


def _object(segments: Segments, source: Source, kind: Kind, path: Path) -> "Dataset":
    with unquoted():
        try:
            if kind == "rtstruct":
                written = structure_set(segments, source)
            else:
                written = segmentation_object(segments, source, label_map=kind == "labelmap")
        except ImportError as error:
            raise FileError(
                f"{path}: needs {error.name}, which is not installed.",
                remedy="pip install 'lamina[dicom]'",
            ) from error
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise FileError(f"{path}: cannot be made for {source.name}: {error}.") from error
        written.update(source.patient)
    return written


def _save(written: "Dataset", part: Path, path: Path) -> None:
    with unquoted():
        try:
            written.save_as(part, enforce_file_format=True)
        except OSError:
            raise
        except Exception:  # noqa: BLE001 whatever it says, it may say it of the patient
            raise FileError(
                f"{path}: cannot be written; a tag about patient or study is damaged.",
                remedy="Correct the series' headers, or use --anonymise, which leaves these out.",
            ) from None


def _measured(part: Path, kind: Kind, source: Source, path: Path) -> dict[str, Measure | None]:
    try:
        return measure_contours(part, source.distance) if kind == "rtstruct" else measure_seg(part)
    except LaminaError as error:
        raise FileError(f"{path}: cannot be read back; it was not kept.") from error
