"""What the server refuses, as errors that know their HTTP status."""

import traceback
from collections.abc import Mapping
from pathlib import Path

from lamina.errors import LaminaError


class Refusal(LaminaError):
    """A request that is answered with an error.

    Args:
        status: HTTP status.
        message: What is wrong with it.
        remedy: What to do about it.
        headers: Sent with the answer, such as ``Retry-After``.
    """

    def __init__(
        self, status: int, message: str, remedy: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.status = status
        self.headers = dict(headers or {})


class UploadError(Refusal):
    """An upload that is malformed, too large, or unsafe to unpack."""


def shown(message: str, remedy: str = "") -> dict[str, dict[str, str]]:
    """Return an error as every route answers it."""
    return {"error": {"message": message, "remedy": remedy}}


def places(error: Exception) -> str:
    """Return where an error comes from, without its message, which may tell of the patient."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames]
    return f"{type(error).__name__} at {' > '.join(lines)}"
