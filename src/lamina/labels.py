"""The names of what is segmented, and the values that stand for them in files."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.colours import default_colour
from lamina.errors import LabelError
from lamina.terminology import Term, known_term, read_terms

IGNORE_INDEX = 255
"""Class index, in encoded label maps, of voxels whose label is unknown."""

_AT_A_TIME = 2**16
"""Voxels that are looked up together; NumPy makes eight bytes of each for a while."""


@dataclass(frozen=True, kw_only=True)
class LabelSet:
    """Names, file values, overlapping regions and the ignore value of a segmentation task.

    Files may use any whole numbers; networks need class indices 0, 1, 2, ... in a row. ``encode``
    goes from the first to the second and ``decode`` back, so that a prediction carries the user's
    own values.

    Raises:
        LabelError: Two names share a value, a value does not fit 64 bits, a region names an unknown
            structure, or there is no foreground.
    """

    values: Mapping[str, int]
    """Structure name -> value in files, in class order; the background is not listed here."""
    background: int = 0
    """Value of the background in files; class index 0."""
    regions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Region name -> the structures it unites, such as whole tumour; regions may overlap."""
    ignore: int | None = None
    """Value of voxels that count neither in the loss nor in a metric; class index 255."""
    relabel: Mapping[int, int] = field(default_factory=dict)
    """Further value in files -> declared value that it counts as, such as tumour as liver."""
    terms: Mapping[str, Term] = field(default_factory=dict)
    """Codes and colour of structures and regions where they are declared; see :meth:`term`."""

    def __post_init__(self) -> None:
        if not self.values:
            raise LabelError(
                "labels: no foreground structure is declared.", remedy="Name at least one."
            )
        if len(self.values) >= IGNORE_INDEX:
            raise LabelError(f"labels: {len(self.values)} structures, at most {IGNORE_INDEX - 1}.")
        taken: dict[int, str] = {}
        self._claim(taken, self.background, "background")
        if self.ignore is not None:
            self._claim(taken, self.ignore, "ignore")
        for name, value in self.values.items():
            self._claim(taken, value, name)
        for region, members in self.regions.items():
            self._check_region(region, members)
        declared = tuple(taken)
        for value, counts_as in self.relabel.items():
            self._claim(taken, value, f"what counts as {counts_as}")
            if counts_as not in declared:
                raise LabelError(f"labels: {value} counts as {counts_as}, which is not declared.")
        if unknown := [name for name in self.terms if name not in self.names]:
            raise LabelError(
                f"labels: terms are declared for {unknown}, which are no structures.",
                remedy=f"Structures are {', '.join(self.names)}.",
            )

    @staticmethod
    def _claim(taken: dict[int, str], value: int, name: str) -> None:
        if not -(2**63) <= value < 2**63:
            raise LabelError(f"labels: {name!r} has the value {value}, beyond 64 bits.")
        if value in taken:
            raise LabelError(f"labels: {name!r} and {taken[value]!r} share the value {value}.")
        taken[value] = name

    def _check_region(self, region: str, members: tuple[str, ...]) -> None:
        unknown = [name for name in members if name not in self.values]
        if not members or unknown or region in self.values:
            fault = f"names {unknown}" if unknown else "is empty or has a structure's name"
            raise LabelError(
                f"labels: region {region!r} {fault}.",
                remedy=f"Structures are {', '.join(self.values)}.",
            )

    @property
    def foreground(self) -> tuple[str, ...]:
        """Structure names in class order; class index = position + 1."""
        return tuple(self.values)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all structures, then of all regions."""
        return (*self.values, *self.regions)

    @property
    def num_classes(self) -> int:
        """Channels of the network's output: the background and every structure."""
        return 1 + len(self.values)

    def term(self, name: str) -> Term:
        """Return the codes of a structure or region, as declared or else as its name suggests.

        It always has a colour, which is the same wherever the structure is shown.
        """
        term = self.terms.get(name) or known_term(name)
        return replace(term, colour=term.colour or default_colour(self.names.index(name)))

    @property
    def region_drawing(self) -> tuple[tuple[int, int], ...]:
        """How class indices follow from regions: pairs (position of the region, class to draw).

        Large regions are drawn first and smaller ones over them, so that each stands for its one
        structure that no smaller region covers: enhancing tumour over tumour core over the whole.

        Raises:
            LabelError: A region leaves none of its structures uncovered, or several.
        """
        classes = {name: i for i, name in enumerate(self.values, start=1)}
        small_first = sorted(enumerate(self.regions.items()), key=lambda item: len(item[1][1]))
        drawing, covered = [], set[str]()
        for position, (region, members) in small_first:
            left = [name for name in members if name not in covered]
            if len(left) != 1:
                raise LabelError(
                    f"labels: region {region!r} has {len(left)} structures that no smaller region "
                    "covers; exactly one is needed to turn regions into labels.",
                    remedy="Declare a region for each of them.",
                )
            drawing.append((position, classes[left[0]]))
            covered.update(members)
        return tuple(reversed(drawing))

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
        table |= {value: table[counts_as] for value, counts_as in self.relabel.items()}
        unknown = [value for value in found.tolist() if value not in table]
        if unknown:
            raise LabelError(
                f"{source}: label values {unknown[:8]} are not declared; "
                f"declared are {sorted(table)}.",
                remedy="Correct the file, or declare the values in dataset.json.",
            )
        indices = np.array([table[value] for value in found.tolist()], dtype=np.uint8)
        return indices[np.searchsorted(found, array)]

    def decode(self, indices: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Turn class indices back into file values.

        Args:
            indices: Class indices of any shape, ``IGNORE_INDEX`` among them if ignore is declared.

        Returns:
            The same shape, in the smallest integer dtype that holds every declared value, so that
            all files of one task share a dtype.
        """
        values = [self.background, *self.values.values()]
        if self.ignore is not None:
            values += [self.background] * (IGNORE_INDEX - len(values)) + [self.ignore]
        low, high = min(values), max(values)
        dtype = np.min_scalar_type(high if low >= 0 else min(low, -high - 1))
        table, decoded = np.array(values, dtype=dtype), np.empty(indices.shape, dtype)
        flat, found = np.ravel(indices), decoded.reshape(-1)
        for first in range(0, flat.size, _AT_A_TIME):
            part = slice(first, first + _AT_A_TIME)
            found[part] = table[flat[part]]
        return decoded

    def masks(self, indices: NDArray[np.integer[Any]]) -> dict[str, NDArray[np.bool_]]:
        """Return one boolean map per structure, then per region, from a map of class indices."""
        classes = {name: i for i, name in enumerate(self.values, start=1)}
        found = {name: indices == i for name, i in classes.items()}
        for region, members in self.regions.items():
            found[region] = np.isin(indices, [classes[name] for name in members])
        return found

    def draw(
        self,
        masks: Iterable[tuple[str, NDArray[np.bool_]]],
        spatial_shape: Sequence[int],
        source: str,
    ) -> NDArray[np.uint8]:
        """Turn masks of named structures into class indices.

        Where a mask has the name of a region, the masks are those of the regions, which may
        overlap: a voxel is of the structure that lies in the regions marked there and in no other.

        Args:
            masks: Names and boolean maps; those of undeclared names count as background.
            spatial_shape: Size of each map.
            source: The file's name, for the message.

        Returns:
            Class indices of that size.

        Raises:
            LabelError: Masks overlap as no one structure does.
        """
        sets, codes = [frozenset[str]()], np.zeros(tuple(spatial_shape), np.int32)
        for name, mask in masks:
            if name in self.values or name in self.regions:
                below, inverse = np.unique(codes[mask], return_inverse=True)
                codes[mask] = len(sets) + inverse
                sets += [sets[code] | {name} for code in below.tolist()]
        counts = np.bincount(codes.ravel(), minlength=len(sets)).tolist()
        classes = self._classes_of_sets(frozenset[str]().union(*sets))
        table = np.zeros(len(sets), np.uint8)
        for code, (marked, count) in enumerate(zip(sets, counts, strict=True)):
            found = classes.get(marked, []) if marked else [0]
            if count and len(found) != 1:
                what = " and ".join(repr(name) for name in sorted(marked))
                alone = "lies outside the regions around it" if len(marked) == 1 else "overlap"
                fault = f"could be {len(found)} structures" if found else alone
                raise LabelError(
                    f"{source}: {what} {fault} in {count} voxels.",
                    remedy="Declare structures that do not overlap, and regions of them, in "
                    "dataset.json; or leave one of these undeclared.",
                )
            table[code] = found[0] if found else 0
        return table[codes]

    def _classes_of_sets(self, drawn: frozenset[str]) -> dict[frozenset[str], list[int]]:
        """Return the classes of the voxels at which exactly these masks are set."""
        names = set(self.values)
        if drawn & set(self.regions):
            united = {name for members in self.regions.values() for name in members}
            names = {*self.regions, *(names - united), *drawn}
        classes: dict[frozenset[str], list[int]] = {}
        for i, structure in enumerate(self.values, start=1):
            owners = (name for name in names if structure in self.regions.get(name, (name,)))
            classes.setdefault(frozenset(owners), []).append(i)
        return classes

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; :meth:`from_dict` reads it back."""
        regions = {name: list(members) for name, members in self.regions.items()}
        return {
            "values": dict(self.values),
            "background": self.background,
            "regions": regions,
            "ignore": self.ignore,
            "relabel": {str(value): counts_as for value, counts_as in self.relabel.items()},
            "terms": {name: term.as_dict() for name, term in self.terms.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "LabelSet":
        """Read what :meth:`as_dict` wrote.

        Raises:
            LabelError: Keys are missing, a value is no whole number, or the content contradicts
                itself.
        """
        try:
            regions = {name: tuple(members) for name, members in data.get("regions", {}).items()}
            values = {str(name): index(value) for name, value in data["values"].items()}
            ignore = data.get("ignore")
            return cls(
                values=values,
                background=index(data.get("background", 0)),
                regions=regions,
                ignore=None if ignore is None else index(ignore),
                relabel={int(v): index(to) for v, to in data.get("relabel", {}).items()},
                terms=read_terms(data.get("terms", {})),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise LabelError(f"labels: cannot be read from {data!r}: {error!r}.") from error
