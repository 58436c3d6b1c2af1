"""Datasets: what is known of public ones."""

from collections.abc import Sequence

from lamina.data.datasets import DatasetDescription, list_descriptions, load_description


def list_datasets(names: Sequence[str] | None = None) -> list[DatasetDescription]:
    """Return the descriptions of public datasets.

    Args:
        names: Datasets; all by default.

    Raises:
        UnknownNameError: A dataset is unknown.
    """
    return [load_description(name) for name in names or list_descriptions()]
