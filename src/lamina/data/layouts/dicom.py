"""DICOM as it is exported: any folders of series, with labels in SEG, RTSTRUCT or a scan format.

Everything but NIfTI and NRRD labels is found by headers, whatever files and folders are called. A
label belongs to the series that it refers to, or else to the only one in its frame of reference; a
NIfTI or NRRD label to the series in the folder beside it that has its name, or to the DICOM file.

Choices:

* A case is a labelled series of images, called after the patient's folder; where that has several,
  after all its folders, and only without any by the end of its SeriesInstanceUID.
* Of a series' labels, SEG is taken before RTSTRUCT, and both before other formats; several SEG, or
  several RTSTRUCT, are taken together unless two of them mark a structure of one name.
* Values are given to the structures' names in alphabetical order over all cases. Where a
  ``dataset.json`` declares labels, other structures count as background.
* Structures that overlap are an error, unless ``dataset.json`` declares them as regions.
* Cases of one PatientID form a group, which is called after a hash of it; without one, after the
  patient's folder. A single PatientID in all of several folders is taken for a placeholder.
"""

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamina.data.case import Case
from lamina.data.cohort import Cohort
from lamina.data.layouts import LAYOUTS, Layout
from lamina.data.layouts.nnunet import has_description
from lamina.data.layouts.table import make_cohort
from lamina.errors import DatasetError, FileError
from lamina.io import is_scan, strip_suffix
from lamina.io.dicom_headers import guarded, parse, plain
from lamina.io.structures import DICOM_SUFFIXES, STRUCTURE_TAGS, Structures, describe, is_dicom
from lamina.labels import LabelSet

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_log = logging.getLogger(__name__)

_TAGS = (*STRUCTURE_TAGS, "SeriesInstanceUID", "Modality", "PatientID", "Rows")
_PRECEDENCE = ("seg", "rtstruct")
_TAIL = 12


@dataclass(frozen=True, kw_only=True)
class _Series:
    """A series of images."""

    uid: str
    modality: str
    frame_of_reference: str
    patient: str
    """Hash of the PatientID; empty where there is none."""
    files: list[Path] = field(default_factory=list)

    @property
    def folders(self) -> list[Path]:
        return sorted({path.parent for path in self.files})


_Labelled = tuple[_Series, list[Path]]
"""A series and the files of its label."""


def _matches(folder: Path) -> bool:
    return not has_description(folder) and any(_dicom_files(folder))


def _read(folder: Path) -> Cohort:
    series, structures = _listed(folder)
    drawn = _drawn_in(series, structures, folder)
    chosen = {uid: _chosen(labels) for uid, labels in drawn.items()}
    labelled = [(series[uid], [label.path for label in chosen[uid]]) for uid in chosen]
    names = sorted({name for labels in chosen.values() for label in labels for name in label.names})
    beside = _beside(folder, [one for uid, one in series.items() if uid not in drawn])
    if bare := len(series) - len(labelled) - len(beside):
        _log.info("%s: %d series without a label are left out.", folder, bare)
    modalities = {one.modality for one, _ in [*labelled, *beside]}
    known: dict[str, Any] = {"channels": tuple(modalities) if len(modalities) == 1 else ("image",)}
    if names and not beside:
        values = {name: value for value, name in enumerate(names, start=1)}
        known["labels"] = LabelSet(values=values)
    elif names and not (folder / "dataset.json").is_file():
        raise DatasetError(
            f"{folder}: some labels name their structures, others number them.",
            remedy='Say in dataset.json which is which: {"labels": {"background": 0, "liver": 1}}.',
        )
    cohort = make_cohort(folder, _cases(folder, [*labelled, *beside]), **known)
    _check_names(folder, names, cohort.labels)
    return cohort


def _dicom_files(folder: Path) -> Iterator[Path]:
    """Yield what is DICOM, by its first bytes or its suffix."""
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder).parts
        if any(part.startswith(".") for part in inner) or not path.is_file():
            continue
        other = is_scan(path) and path.suffix.lower() not in DICOM_SUFFIXES
        if not other and is_dicom(path):
            yield path


def _listed(folder: Path) -> tuple[dict[str, _Series], list[Structures]]:
    """Return the series of images by their UID, and what marks structures."""
    series: dict[str, _Series] = {}
    structures: list[Structures] = []
    for path in _dicom_files(folder):
        try:
            header = parse(path, _TAGS, pixels=False)
            found = describe(header, path) or _image(header, path)
        except FileError as error:
            _log.warning("%s", error)
            continue
        if isinstance(found, Structures):
            structures.append(found)
        elif found:
            series.setdefault(found.uid, found).files.append(path)
        elif "SOPClassUID" not in header and path.name != "DICOMDIR":
            _log.warning("%s: is DICOM that says nothing; is it damaged?", path)
    return series, structures


def _image(header: "Dataset", path: Path) -> _Series | None:
    """Return the series of an image, which does not list it yet, or None of something else."""
    with guarded(path):
        if not header.get("Rows"):
            return None
        patient = str(header.get("PatientID") or "").strip()
        return _Series(
            uid=str(header.get("SeriesInstanceUID") or ""),
            modality=plain(header.get("Modality") or "image"),
            frame_of_reference=str(header.get("FrameOfReferenceUID") or ""),
            patient=hashlib.sha256(patient.encode()).hexdigest()[:_TAIL] if patient else "",
        )


def _drawn_in(
    series: dict[str, _Series], structures: Sequence[Structures], folder: Path
) -> dict[str, list[Structures]]:
    """Return what is marked in each series, by its UID."""
    drawn = defaultdict[str, list[Structures]](list)
    placed = defaultdict[str, list[str]](list)
    for uid, one in series.items():
        placed[one.frame_of_reference].append(uid)
    for label in structures:
        near = [uid for frame in label.frames_of_reference for uid in placed[frame]]
        found = [uid for uid in label.series if uid in series] or near
        if len(found) == 1:
            drawn[found[0]].append(label)
            continue
        _log.warning(
            "%s: left out; %d series of %s could be what it was drawn on.",
            label.path,
            len(found),
            folder,
        )
    return drawn


def _chosen(labels: Sequence[Structures]) -> list[Structures]:
    """Return the labels of a series that are taken.

    Raises:
        DatasetError: Two of them mark a structure of one name.
    """
    kind = min((label.kind for label in labels), key=_PRECEDENCE.index)
    chosen = [label for label in labels if label.kind == kind]
    if len(chosen) < len(labels):
        others = [str(label.path) for label in labels if label.kind != kind]
        _log.warning("%s: left out, as %s is there too.", ", ".join(others), chosen[0].path)
    first: dict[str, Structures] = {}
    for label in chosen:
        for name in label.names:
            if first.setdefault(name, label) is not label:
                raise DatasetError(
                    f"{label.path}: marks {name!r} in one series, as does {first[name].path}.",
                    remedy="Keep one of them, such as the latest.",
                )
    return chosen


def _beside(folder: Path, series: Sequence[_Series]) -> list[_Labelled]:
    """Return series that have a label in another format, of the same name."""
    labels: dict[Path, Path] = {}
    for path in sorted(folder.rglob("*")):
        if is_scan(path) and path.is_file() and path.suffix.lower() not in DICOM_SUFFIXES:
            labels.setdefault(path.parent / strip_suffix(path), path)
    crowded = Counter(home for one in series for home in one.folders)
    found: list[_Labelled] = []
    for one in series:
        home = one.folders[0]
        names = [home, home / home.name] if crowded[home] == 1 else []
        if len(one.files) == 1:
            names = [one.files[0], one.files[0].with_suffix(""), *names]
        if label := next((labels[name] for name in names if name in labels), None):
            found.append((one, [label]))
    return found


def _cases(folder: Path, labelled: Sequence[_Labelled]) -> list[Case]:
    ids = _case_ids([(one.uid, _inner(folder, one)) for one, _ in labelled])
    patients = {one.patient for one, _ in labelled}
    homes = {_inner(folder, one)[:1] for one, _ in labelled}
    placeholder = len(patients) == 1 and len(homes) > 1
    if placeholder and patients != {""}:
        _log.warning(
            "%s: all files have one PatientID; patients are told apart by their folders.", folder
        )
    cases = []
    for (one, files), case_id in zip(labelled, ids, strict=True):
        told = "" if placeholder else one.patient
        cases.append(
            Case(
                case_id=case_id,
                group=f"patient-{told}" if told else (*_inner(folder, one), case_id)[0],
                images=(one.folders[0],),
                label=files[0],
                objects=tuple(files[1:]),
                series=one.uid,
            )
        )
    return cases


def _inner(folder: Path, series: _Series) -> tuple[str, ...]:
    """Return the folders within the dataset in which a series lies, from the patient's on."""
    if len(series.folders) > 1:
        raise DatasetError(
            f"{series.folders[0]} and {series.folders[1]}: hold files of one series.",
            remedy="Bring them into one folder, or remove the copies.",
        )
    return series.folders[0].relative_to(folder).parts


def _case_ids(series: Iterable[tuple[str, tuple[str, ...]]]) -> list[str]:
    """Return the shortest names that tell series apart, from their UIDs and folders."""
    known = list(series)
    patients = Counter(folders[:1] for _, folders in known)
    places = Counter(folders for _, folders in known)
    ids = []
    for uid, folders in known:
        parts = folders[:1] if patients[folders[:1]] == 1 else folders
        if not parts or places[folders] > 1:
            parts = (*parts, f"series-{uid[-_TAIL:]}")
        ids.append("_".join(parts))
    return ids


def _check_names(folder: Path, names: Sequence[str], labels: LabelSet) -> None:
    declared = {*labels.values, *labels.regions}
    if names and not declared & set(names):
        raise DatasetError(
            f"{folder}: no structure is called as dataset.json declares: {sorted(declared)[:5]}.",
            remedy=f"They are called {names[:8]}.",
        )
    if others := [name for name in names if name not in declared]:
        _log.warning(
            "%s: %d structures are not declared and count as background: %s.",
            folder,
            len(others),
            others[:8],
        )


LAYOUTS.register("dicom")(
    Layout(
        "folders of DICOM series with SEG, RTSTRUCT or label files of the same name",
        _matches,
        _read,
        fallback=True,
    )
)
