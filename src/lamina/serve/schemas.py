"""The JSON that goes in and out, as the interface documents it."""

from typing import Any, Literal

from pydantic import BaseModel, Field


class Label(BaseModel):
    """A structure that a model finds."""

    name: str
    value: int
    """In the segmentation."""
    color: str = Field(pattern="^#[0-9a-f]{6}$")


class Model(BaseModel):
    """A model that can be asked for."""

    name: str
    title: str
    card: str
    """Markdown."""
    labels: list[Label]
    channels: list[str]
    spatial_dims: int
    unit: Literal["mm", "px"]
    """What it measures in; of pictures, one in mm must be told the size of a pixel."""
    network: str
    size_bytes: int
    scores: dict[str, Any] | None


class Fault(BaseModel):
    """What is wrong, and what to do about it."""

    message: str
    remedy: str


class Error(BaseModel):
    """The body of every answer above 399."""

    error: Fault


class Structure(Label):
    """A structure that was looked for."""

    size: float
    unit: Literal["ml", "cm²", "px"]
    """Of a scan, of a 2D image, of a picture that does not tell how large its pixels are."""
    flags: list[str]


class ResultFile(BaseModel):
    """A file to download."""

    name: str
    kind: str
    size_bytes: int


class Job(BaseModel):
    """A scan that is segmented, or was, or will be."""

    id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    progress: float = Field(ge=0, le=1)
    stage: str
    model: str
    name: str
    created: str
    started: str | None
    finished: str | None
    error: Fault | None
    position: int | None
    structures: list[Structure]
    flags: list[str]
    affine: list[list[float]] | None
    files: list[ResultFile]
