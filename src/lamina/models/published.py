"""What papers print of their networks, kept beside each preset to be held against measurements."""

from dataclasses import dataclass

_UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}


@dataclass(frozen=True, kw_only=True)
class Published:
    """One row of a paper's table, as printed.

    Raises:
        ValueError: A figure does not read like ``"47.16 M"``, ``"8.6 k"`` or ``"2,326,638"``.
    """

    where: str
    """Paper, table and row: ``"GLIMS, Table 4, 2/6/2"``."""
    in_channels: int
    """Image channels that the figures are for."""
    num_classes: int
    """Channels of the logits that the figures are for."""
    size: tuple[int, ...]
    """Size of the image, in array order, that the operations are counted for."""
    parameters: str | None = None
    """Number of weights, with the digits and the unit of the paper."""
    macs: str | None = None
    """Multiply-accumulate operations of one prediction, whatever the paper calls them."""
    note: str = ""
    """Why a measurement differs, such as the paper's way of counting."""

    def __post_init__(self) -> None:
        for figure in (self.parameters, self.macs):
            if figure is not None:
                quantity(figure)


def quantity(figure: str) -> float:
    """Return the number that a printed figure stands for: ``"0.48 M"`` -> 480000.

    Raises:
        ValueError: It is not a number with nothing, k, M or G behind it.
    """
    number, _, unit = figure.replace(",", "").partition(" ")
    if unit not in _UNITS:
        raise ValueError(f"{figure!r}: the unit must be one of k, M, G, or none.")
    return float(number) * _UNITS[unit]
