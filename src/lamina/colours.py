"""Colours to show structures in, told apart as well as their number allows."""

from functools import cache
from itertools import product

Colour = tuple[int, int, int]
"""Red, green and blue, 0..255."""

OKABE_ITO = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00", "#0072B2")
"""Colours that people with any colour vision tell apart (Okabe and Ito 2008), black left out."""

_TONES = 3 * len(OKABE_ITO)
_MOST = 255
_LEVELS = range(45, 256, 30)
_SHADES: list[Colour] = [
    (red, green, blue)
    for red, green, blue in product(_LEVELS, repeat=3)
    if max(red, green, blue) >= 135 and len({red, green, blue}) > 1
]
"""To choose from: neither dark nor grey, as scans and their background are."""


def default_colour(index: int) -> Colour:
    """Return a colour for each number from 0.

    The first seven are colour-blind safe. Fourteen more are these lighter, then darker; each of the
    rest is the one that is least like all before.
    """
    if index >= _TONES:
        further = _further_colours()
        return further[(index - _TONES) % len(further)]
    lap, place = divmod(index, len(OKABE_ITO))
    mix, target = (0.0, 0.45, 0.45)[lap % 3], 255 * (lap % 3 == 1)
    parts = [int(OKABE_ITO[place][i : i + 2], 16) for i in (1, 3, 5)]
    red, green, blue = (round(part + mix * (target - part)) for part in parts)
    return red, green, blue


@cache
def _further_colours() -> tuple[Colour, ...]:
    """Return colours for all further classes of a label map, each the farthest from all before."""
    chosen = [default_colour(index) for index in range(_TONES)]
    left = {shade: min(_apart(shade, each) for each in chosen) for shade in _SHADES}
    while len(chosen) < _MOST:
        farthest = max(left, key=lambda shade: left[shade])
        chosen.append(farthest)
        del left[farthest]
        left = {shade: min(apart, _apart(shade, farthest)) for shade, apart in left.items()}
    return tuple(chosen[_TONES:])


def _apart(one: Colour, other: Colour) -> float:
    """Return how different two colours look, roughly: eyes weigh green most, then red."""
    return sum(w * (a - b) ** 2 for w, a, b in zip((3, 4, 2), one, other, strict=True))
