"""How segmentations are written: as files like the scans, or as DICOM objects beside a series."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, cast, get_args

from lamina import __version__
from lamina.data.case import Case
from lamina.errors import ConfigError, GeometryError
from lamina.io import is_scan, write_volume, written_suffix
from lamina.io.derived import Kind, Producer, Pseudonyms, check_series, write_structures
from lamina.io.structures import DICOM_SUFFIXES
from lamina.labels import LabelSet
from lamina.volume import Volume

NIFTI: Final = "nifti"
OBJECTS: tuple[Kind, ...] = get_args(Kind)
"""Formats that are DICOM objects."""

_SUFFIXES: dict[Kind, str] = {
    "seg": ".seg.dcm",
    "labelmap": ".seg.dcm",
    "rtstruct": ".rtstruct.dcm",
}


@dataclass(frozen=True, kw_only=True)
class Output:
    """The form that the segmentations of one run of predict take."""

    form: Literal["nifti"] | Kind | None
    """NIfTI, whatever format the scan has, or a DICOM object; ``None``: the scan's own format."""
    pseudonyms: Pseudonyms | None
    """What patients and UIDs are called in all objects, if they are anonymised."""

    def names(self, case: Case) -> Iterator[str]:
        """Yield the names that the file may get, depending on the scan's unit."""
        yield from {self.name(case, "mm"), self.name(case, "px")}

    def name(self, case: Case, unit: str) -> str:
        """Name the segmentation after the case, in the format of its (first) file.

        Formats of two files become those that keep both in one, lossy ones those that are exact.
        DICOM, as which folders and files without a suffix count, becomes NIfTI, or PNG where it is
        a picture measured in pixels.
        """
        if self.form == NIFTI:
            return f"{case.case_id}.nii.gz"
        if self.form:
            return case.case_id + _SUFFIXES[self.form]
        first = case.images[0].name
        name = first if is_scan(first) else f"{first}.dcm"
        if unit == "px" and name.lower().endswith(DICOM_SUFFIXES):
            return f"{case.case_id}.png"
        return case.case_id + written_suffix(name)

    def grid(self, image: Volume, stored: Volume) -> Volume:
        """Return what a segmentation is laid on: the file's own grid, for NIfTI one in mm.

        Args:
            image: With the size of pixels that the case tells, if any.
            stored: As it lies in its file.

        Raises:
            GeometryError: NIfTI is asked for, and nothing tells the size of a picture's pixels.
        """
        if self.form != NIFTI:
            return stored
        if image.unit == "px":
            raise GeometryError(
                f"{image.source}: does not tell the size of its pixels, which NIfTI needs.",
                remedy="Tell it with --pixel-size, or leave out --format nifti.",
            )
        return image

    def check(self, case: Case, labels: LabelSet) -> None:
        """Check, before a case is segmented, that its segmentation can be written.

        Raises:
            FileError, GeometryError, LabelError: It cannot.
        """
        if self.form in OBJECTS:
            check_series(case.images[0], labels, case.series)

    def write(
        self, segmentation: Volume, case: Case, labels: LabelSet, model_sha256: str, path: Path
    ) -> None:
        """Write the segmentation of a case, whole or not at all.

        Raises:
            FileError, GeometryError, LabelError: It cannot be written, or does not read back.
        """
        if self.form is None or self.form == NIFTI:
            write_volume(segmentation, path)
            return
        write_structures(
            segmentation,
            labels,
            path,
            kind=self.form,
            scan=case.images[0],
            series_uid=case.series,
            producer=Producer(name="Lamina", version=__version__, model=model_sha256),
            pseudonyms=self.pseudonyms,
        )


def output_of(name: str | None, *, anonymise: bool = False) -> Output:
    """Return the form that is asked for.

    Args:
        name: ``"nifti"``, ``"seg"``, ``"labelmap"`` or ``"rtstruct"``; ``None`` takes the format of
            each scan, which for DICOM is NIfTI.
        anonymise: Call patient and UIDs something else in DICOM objects.

    Raises:
        ConfigError: It is none of them.
    """
    known = (NIFTI, *OBJECTS)
    if name is not None and name not in known:
        raise ConfigError(f"format {name!r} is unknown.", remedy=f"Known: {', '.join(known)}.")
    form = cast("Literal['nifti'] | Kind | None", name)
    return Output(form=form, pseudonyms=Pseudonyms() if anonymise else None)
