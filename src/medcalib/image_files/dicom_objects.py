"""Make DICOM objects of what was predicted for a series: segmentations and parametric maps."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medcalib.image_files.dicom_codes import DicomCode, SegmentCodes
from medcalib.image_files.dicom_source import DicomSource, frames_of, pydicom_and_highdicom

__all__ = ["DicomMaker", "MapMeaning", "Segment", "map_object", "segmentation_object"]

_NAME = "medcalib"
_LONGEST = 64
_INTELLIGENCE = DicomCode("123110", "DCM", "Artificial Intelligence")
_NAMESPACE = uuid.UUID("6a1f9d0e-5b0c-4a55-9d37-2f0c3a8a7b11")
_UTF8 = "ISO_IR 192"


class DicomMaker(NamedTuple):
    """What made the values of an object.

    Attributes:
        name: of the bundle.
        version: of this package.
        digest: what tells its weights apart from others.
        settings: more that decides the values, plain values by name.
    """

    name: str
    version: str
    digest: str
    settings: dict[str, Any]


class Segment(NamedTuple):
    """A class, as an object names it.

    Attributes:
        name: of the class.
        codes: what it is.
        color: in which it is to be shown, red, green and blue in [0, 1].
    """

    name: str
    codes: SegmentCodes
    color: tuple[float, float, float]


class MapMeaning(NamedTuple):
    """What the values of a map are.

    Attributes:
        name: such as ``entropy``.
        explanation: in a few words, up to 64 characters.
        unit: code of the Unified Code for Units of Measure.
        largest: upper end of the scale; the lower one is 0.
    """

    name: str
    explanation: str
    unit: DicomCode
    largest: float


def segmentation_object(
    source: DicomSource, labels: NDArray, segments: Sequence[Segment], maker: DicomMaker, place: int = 1
) -> Any:
    """A DICOM Segmentation (binary) in the geometry of a series, of which each frame refers to its slice.

    Args:
        source: the series.
        labels: numbers of segments from 1 on, 0 for none (X, Y, Z), or of segments that may overlap one channel each
            (X, Y, Z, S), 0 and 1; on the grid of `medcalib.image_files.dicom_series.DicomSeries`.
        segments: in the order of their numbers.
        maker: what made it.
        place: among the series that are derived from this one, from 1 on.

    Returns:
        A ``highdicom.seg.Segmentation`` without the frames of a segment that are empty. Its identifiers follow from the
        slices, the maker and the labels, so the same again has the same ones.
    """
    _, highdicom = pydicom_and_highdicom()
    frames = frames_of(labels.astype(np.uint8 if len(segments) < 256 else np.uint16, copy=False))
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=_shortened(maker.name),
        version=_shortened(maker.version),
        family=_concept(_INTELLIGENCE),
        source=_NAME,
        parameters={name: str(value) for name, value in maker.settings.items()},
    )
    descriptions = [
        highdicom.seg.SegmentDescription(
            number,
            segment.name[:_LONGEST],
            _concept(segment.codes.category),
            _concept(segment.codes.type),
            highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm,
            display_color=highdicom.color.CIELabColor.from_rgb(*(round(255 * part) for part in segment.color)),
        )
        for number, segment in enumerate(segments, 1)
    ]
    made = highdicom.seg.Segmentation(
        pixel_array=frames,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        content_label="SEGMENTATION",
        **_shared(source, frames, maker, [tuple(segment) for segment in segments], place, "segmentation"),
    )
    return _finished(made)


def map_object(
    source: DicomSource, values: NDArray[np.float32], meaning: MapMeaning, maker: DicomMaker, place: int = 2
) -> Any:
    """A DICOM Parametric Map in the geometry of a series, of which each frame refers to its slice.

    Args:
        source: the series.
        values: (X, Y, Z), on the grid of `medcalib.image_files.dicom_series.DicomSeries`.
        meaning: what they are.
        maker: what made them.
        place: among the series that are derived from this one, from 1 on.

    Returns:
        A ``highdicom.pm.ParametricMap`` of float32, whose real-world values are the stored ones. Its identifiers follow
        from the slices, the maker and the values.
    """
    _, highdicom = pydicom_and_highdicom()
    frames = frames_of(values.astype(np.float32, copy=False))
    mapping = highdicom.pm.RealWorldValueMapping(
        lut_label=meaning.name.upper()[:16],
        lut_explanation=meaning.explanation[:_LONGEST],
        unit=_concept(meaning.unit),
        # rounding may take a value above what is the largest in theory
        value_range=(0.0, max(float(meaning.largest), float(frames.max()))),
        slope=1.0,
        intercept=0.0,
        quantity_definition=_concept(DicomCode(meaning.name[:16], "99MEDCALIB", meaning.explanation)),
    )
    window = highdicom.VOILUTTransformation(window_center=meaning.largest / 2, window_width=meaning.largest)
    made = highdicom.pm.ParametricMap(
        pixel_array=frames,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[window],
        content_label=meaning.name.upper()[:16],
        **_shared(source, frames, maker, list(meaning), place, meaning.name),
    )
    return _finished(made)


def _shared(
    source: DicomSource, frames: NDArray, maker: DicomMaker, described: Any, place: int, what: str
) -> dict[str, Any]:
    """Arguments of both kinds of objects."""
    digest = hashlib.sha256(json.dumps([maker, described, what, frames.shape], default=str).encode())
    digest.update("\n".join(str(header.SOPInstanceUID) for header in source.headers).encode())
    digest.update(frames.data)
    shown = what.replace("_", " ")
    return {
        "source_images": source.headers,
        "series_instance_uid": _uid(digest, "series"),
        "sop_instance_uid": _uid(digest, "instance"),
        "series_number": source.number_of(place),
        "instance_number": 1,
        "series_description": _shortened(f"{shown}, {maker.name}"),
        "content_description": _shortened(f"{shown}, {maker.name}"),
        "manufacturer": _NAME,
        "manufacturer_model_name": _shortened(maker.name),
        "software_versions": _shortened(maker.version),
        # must not be empty; for software, what tells one from another
        "device_serial_number": maker.digest[:_LONGEST] or "unknown",
        "specific_character_set": _UTF8,
    }


def _finished(made: Any) -> Any:
    """The object with the one identifier that is drawn at random replaced by one that follows from its own."""
    organization = _uid(hashlib.sha256(made.SOPInstanceUID.encode()), "dimensions")
    for sequence in (made.DimensionOrganizationSequence, made.DimensionIndexSequence):
        for item in sequence:
            item.DimensionOrganizationUID = organization
    return made


def _uid(digest: Any, what: str) -> str:
    """A UID without a registered root, as DICOM makes them of UUIDs."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, f'{what} {digest.hexdigest()}').int}"


def _concept(code: DicomCode) -> Any:
    return pydicom_and_highdicom()[1].sr.CodedConcept(*code)


def _shortened(text: str) -> str:
    """A text of at most 64 characters with its end, where a bundle's name has what tells it from others."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 12]}...{text[-9:]}"
