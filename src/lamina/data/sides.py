"""Which structures take each other's place when a body is mirrored, told from their names.

A pair must be mirror images of each other: kidneys, hippocampi, femora. A mirrored left ventricle
is still the thick-walled one, so chambers, lobes and great vessels have no partner, whatever their
names. In doubt a structure counts as one without a partner: then nothing is mirrored, and nothing
is learned wrongly.
"""

import re

from lamina.labels import LabelSet

SIDE = re.compile(
    r"(?i:left|right|sinist|dext|(?<![a-z0-9])[lr][ht]?(?![a-z0-9]))|(?<=[a-z])[LR]$|^[LR](?=[A-Z][a-z])"
)
"""A side of the body within a structure's name."""
_UNLIKE = re.compile(
    r"(?i)atri|auric|append|(?<!lateral.)ventric|heart|cardi|coron|lob(?:e|us)|liver|hepat|gastri"
    r"|colon|flexur|bronch|pulmon|cephal|carotid|subclav"
)
"""Parts whose left and right differ in shape."""

_Key = tuple[tuple[str, ...], tuple[bool, ...]]


def side_pairs(labels: LabelSet) -> tuple[tuple[int, int], ...]:
    """Return pairs of class indices, lower first, that a left-right mirror exchanges."""
    keys = {index: _key(name) for index, name in enumerate(labels.foreground, start=1)}
    known = list(keys.values())
    holders = {key: index for index, key in keys.items() if key and known.count(key) == 1}
    pairs = [(index, holders.get(_opposite(key), 0)) for key, index in holders.items()]
    return tuple(sorted((low, high) for low, high in pairs if low < high))


def lone_sides(labels: LabelSet) -> tuple[str, ...]:
    """Return the names of structures of one side that nothing takes the place of in a mirror."""
    paired = {index for pair in side_pairs(labels) for index in pair}
    return tuple(
        name
        for index, name in enumerate(labels.foreground, start=1)
        if SIDE.search(name) and index not in paired
    )


def _key(name: str) -> _Key | None:
    """Split a name that may have a partner into its words without sides, and whether each is left.

    Words are sorted: ``left kidney`` and ``Kidney_R`` name a pair.
    """
    sides = tuple(found[0].lower() in "ls" for found in SIDE.findall(name))
    if not sides or _UNLIKE.search(name):
        return None
    words = re.split(r"[^a-z0-9*]+", SIDE.sub(" * ", name).lower())
    return tuple(sorted(word for word in words if word)), sides


def _opposite(key: _Key) -> _Key:
    words, sides = key
    return words, tuple(not side for side in sides)
