"""DICOM segmentation objects (SEG), made by highdicom.

Choices:

* highdicom is given one plain header per slice, without a patient, and what it says of references
  and of the patient is set after: so multi-frame sources need no other way, odd values of real
  patients are copied instead of refused, and no message of another package can tell them.
* Frames without a voxel of their segment are left out. Absent structures stay described.
* BINARY is not compressed, as few viewers read it otherwise; LABELMAP is run-length encoded.

Source: DICOM PS3.3, A.51, C.8.20 and C.7.6.16 (references of frames).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamina.io.derived.segments import DESCRIPTION, SERIES_OFFSET, Producer, Segments
from lamina.io.derived.source import EMPTY_TAGS, Plane, Source, reference, references
from lamina.terminology import Code, Term

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription
    from pydicom.dataset import Dataset

_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"


def segmentation_object(segments: Segments, source: Source, *, label_map: bool) -> "Dataset":
    """Return a SEG of a segmentation, ready to be written.

    Args:
        segments: The structures, on the slices of the series.
        source: The series.
        label_map: Make a LABELMAP, in which structures cannot overlap, rather than a BINARY.
    """
    import highdicom as hd
    from pydicom import uid

    producer = segments.producer
    # Of an empty segmentation highdicom writes all frames; those of one slice say as much.
    shown = len(source.planes) if segments.indices.any() else 1
    stand_ins = {str(uid.generate_uid(prefix=None)): plane for plane in source.planes[:shown]}
    written = hd.seg.Segmentation(
        source_images=[_header(source, plane, stand_in) for stand_in, plane in stand_ins.items()],
        pixel_array=_pixels(segments)[:shown],
        segmentation_type="LABELMAP" if label_map else "BINARY",
        segment_descriptions=[
            _described(number, name, term, producer)
            for number, (name, term) in enumerate(segments.terms.items(), start=1)
        ],
        series_instance_uid=uid.generate_uid(prefix=None),
        series_number=source.series_number + SERIES_OFFSET,
        series_description=DESCRIPTION,
        sop_instance_uid=uid.generate_uid(prefix=None),
        instance_number=1,
        manufacturer=producer.name,
        manufacturer_model_name=producer.name,
        software_versions=producer.version,
        device_serial_number=producer.serial,
        transfer_syntax_uid=uid.RLELossless if label_map else uid.ExplicitVRLittleEndian,
        specific_character_set="ISO_IR 192",
        content_label="SEGMENTATION",
        content_description=DESCRIPTION,
    )
    written.ContentCreatorName = ""
    _refer(written, source, stand_ins)
    return written


def _pixels(segments: Segments) -> NDArray[Any]:
    """Return planes of numbers, or where structures overlap, of one truth value for each."""
    if not segments.overlap:
        return segments.indices.T
    masks = [mask.T for _, mask in segments.masks()]
    return np.stack(masks, axis=-1).astype(np.uint8)


def _header(source: Source, plane: Plane, stand_in: str) -> "Dataset":
    """Return a slice as highdicom wants it, with another UID than its own."""
    from pydicom.dataset import Dataset

    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID = _CT_IMAGE, stand_in
    header.StudyInstanceUID, header.SeriesInstanceUID = source.study, source.series
    header.FrameOfReferenceUID = source.frame_of_reference
    header.PositionReferenceIndicator = source.position_reference
    for tag in EMPTY_TAGS:
        setattr(header, tag, "")
    header.Modality = "CT"
    header.Columns, header.Rows = source.size
    header.PixelSpacing = list(source.spacing)
    header.SliceThickness = header.SpacingBetweenSlices = source.distance
    header.ImageOrientationPatient = list(source.orientation)
    header.ImagePositionPatient = [float(value) for value in plane.position]
    header.update(source.lossy)
    return header


def _refer(written: "Dataset", source: Source, stand_ins: Mapping[str, Plane]) -> None:
    """Replace references to stand-ins by those to where the slices are stored."""
    instances = references(source.planes)
    written.SourceImageSequence = instances
    written.ReferencedSeriesSequence[0].ReferencedInstanceSequence = instances
    for group in written.PerFrameFunctionalGroupsSequence:
        for derivation in group.DerivationImageSequence:
            for image in derivation.SourceImageSequence:
                plane = stand_ins.get(image.ReferencedSOPInstanceUID)
                if plane:  # frames of several segments share these items
                    image.update(reference(plane))


def _described(number: int, name: str, term: Term, producer: Producer) -> "SegmentDescription":
    import highdicom as hd
    from pydicom import uid
    from pydicom.sr.codedict import codes

    described = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=_coded(term.category),
        segmented_property_type=_coded(term.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=producer.name,
            version=producer.version,
            family=codes.DCM.ArtificialIntelligence,
            parameters={"model": producer.model} if producer.model else None,
        ),
        tracking_id=name,
        tracking_uid=uid.generate_uid(prefix=None),
        display_color=hd.color.CIELabColor.from_rgb(*(term.colour or (0, 0, 0))),
    )
    if term.modifier:
        kind = described.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [_coded(term.modifier)]
    return described


def _coded(code: Code) -> Any:
    from highdicom.sr.coding import CodedConcept

    return CodedConcept(code.value, code.scheme, code.meaning)
