"""The names of what is segmented, and the values that stand for them in files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.errors import LabelError

IGNORE_INDEX = 255
"""Class index, in encoded label maps, of voxels whose label is unknown."""


@dataclass(frozen=True, kw_only=True)
class LabelSet:
    """Names, file values, overlapping regions and the ignore value of a segmentation task.

    Files may use any whole numbers; networks need class indices 0, 1, 2, ... in a row. ``encode`` goes
    from the first to the second and ``decode`` back, so that a prediction carries the user's own values.

    Raises:
        LabelError: Two names share a value, a region names an unknown structure, or there is no foreground.
    """

    values: Mapping[str, int]
    """Structure name -> value in files, in class order; the background is not listed here."""
    background: int = 0
    """Value of the background in files; class index 0."""
    regions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Region name -> the structures it is the union of, such as whole tumour; regions may overlap."""
    ignore: int | None = None
    """Value of voxels that count neither in the loss nor in a metric; class index 255."""

    def __post_init__(self) -> None:
        if not self.values:
            raise LabelError(
                "labels: no foreground structure is declared.", remedy="Name at least one."
            )
        if len(self.values) >= IGNORE_INDEX:
            raise LabelError(f"labels: {len(self.values)} structures, at most {IGNORE_INDEX - 1}.")
        taken: dict[int, str] = {self.background: "background"}
        if self.ignore is not None:
            self._claim(taken, self.ignore, "ignore")
        for name, value in self.values.items():
            self._claim(taken, value, name)
        for region, members in self.regions.items():
            unknown = [name for name in members if name not in self.values]
            if unknown or not members or region in self.values:
                fault = f"names {unknown}" if unknown else "is empty or has a structure's name"
                raise LabelError(
                    f"labels: region {region!r} {fault}.", remedy=f"Structures: {self.foreground}."
                )

    @staticmethod
    def _claim(taken: dict[int, str], value: int, name: str) -> None:
        if value in taken:
            raise LabelError(f"labels: {name!r} and {taken[value]!r} share the value {value}.")
        taken[value] = name

    @property
    def foreground(self) -> tuple[str, ...]:
        """Structure names in class order; class index = position + 1."""
        return tuple(self.values)

    @property
    def num_classes(self) -> int:
        """Channels of the network's output: the background and every structure."""
        return 1 + len(self.values)

    def encode(self, array: NDArray[Any], source: str) -> NDArray[np.uint8]:
        """Turn file values into class indices.

        Args:
            array: Whole numbers of any dtype and shape, as they stand in the file.
            source: The file's name, for the message.

        Returns:
            Class indices of the same shape; ``IGNORE_INDEX`` where the file says ignore.

        Raises:
            LabelError: Values that are not declared, listed with the ones that are.
        """
        found = np.unique(array)
        table = {self.background: 0} | {
            value: i for i, value in enumerate(self.values.values(), start=1)
        }
        if self.ignore is not None:
            table[self.ignore] = IGNORE_INDEX
        unknown = [value for value in found.tolist() if value not in table]
        if unknown:
            raise LabelError(
                f"{source}: label values {unknown[:8]} are not declared; declared are {sorted(table)}.",
                remedy="Correct the file, or declare the values in dataset.json.",
            )
        indices = np.array([table[value] for value in found.tolist()], dtype=np.uint8)
        return indices[np.searchsorted(found, array)]

    def decode(self, indices: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Turn class indices back into file values, in the smallest integer dtype that holds them all."""
        values = np.array([self.background, *self.values.values()], dtype=np.int64)
        low, high = int(values.min()), int(values.max())
        dtype = np.result_type(np.min_scalar_type(low), np.min_scalar_type(high))
        return values.astype(dtype)[indices]

    def masks(self, indices: NDArray[np.integer[Any]]) -> dict[str, NDArray[np.bool_]]:
        """Return one boolean map per structure, then one per region, from a map of class indices."""
        index = {name: i for i, name in enumerate(self.values, start=1)}
        found = {name: indices == i for name, i in index.items()}
        for region, members in self.regions.items():
            found[region] = np.isin(indices, [index[name] for name in members])
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; :meth:`from_dict` reads it back."""
        regions = {name: list(members) for name, members in self.regions.items()}
        return {
            "values": dict(self.values),
            "background": self.background,
            "regions": regions,
            "ignore": self.ignore,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "LabelSet":
        """Read what :meth:`as_dict` wrote.

        Raises:
            LabelError: Keys are missing or the content contradicts itself.
        """
        try:
            regions = {name: tuple(members) for name, members in data.get("regions", {}).items()}
            values = {str(name): int(value) for name, value in data["values"].items()}
            return cls(
                values=values,
                background=int(data.get("background", 0)),
                regions=regions,
                ignore=data.get("ignore"),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise LabelError(f"labels: cannot be read from {dict(data)!r}: {error!r}.") from error
