"""Fixtures that every test may ask for."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real scans and specifications beside the checkout."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"real scans are not at hand: {SHARED / 'data'} does not exist")
    return SHARED
