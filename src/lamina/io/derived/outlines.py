"""Outlines of a mask: closed lines along the edges of its pixels, holes joined by a seam.

An outline encloses exactly the pixels of a part, so that areas, centres and extents are those of
the mask, and every way of filling contours, by even-odd rule, by winding or one by one, gives the
mask back. Parts that touch at a corner only are separate. A hole is joined to what is around it by
a seam that is passed twice, a keyhole (PS3.3, C.8.8.6.3); many readers fill contours one by one.
"""

import numpy as np
from numpy.typing import NDArray

Outline = NDArray[np.float64]
"""Corners ``(N, 2)`` in pixel coordinates, pixel centres being whole; the first is not repeated."""

_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))
"""Directions in which the edges of a pixel follow one another, the pixel on their same side."""
_SIDES = (((0, 0), (-1, 0)), ((0, 1), (0, 1)), ((1, 1), (1, 0)), ((1, 0), (0, -1)))
"""Of each direction: the corner of the pixel where its edge starts, and the pixel beyond it."""
_LEFT = 2
_SEAM = 0.25
"""Where a seam leaves an edge: beside its middle, for it must not pass the centres of pixels."""

_Edge = tuple[int, int, int]
"""Row and column of the corner that it starts at, and its direction."""
_Points = list[tuple[float, float]]


def outlines(mask: NDArray[np.bool_]) -> list[Outline]:
    """Return one outline for each part of a mask whose pixels share edges.

    Args:
        mask: A plane.

    Returns:
        Outlines that do not overlap; holes of the part are left out by a seam.
    """
    padded = np.pad(mask, 1)
    outer, holes = [], []
    for loop in _loops(padded):
        if sum(row * _STEPS[way][1] - column * _STEPS[way][0] for row, column, way in loop) > 0:
            holes.append(_from_top(loop))
        else:
            outer.append(loop)
    seams: dict[_Edge, _Points] = {}
    for loop in sorted(holes, reverse=True):  # one that hangs on another's seam comes before it
        row, column, _ = loop[-1]
        above = row - 1
        while padded[above - 1, column - 1]:
            above -= 1
        seam = [(float(end), column - 1 + _SEAM) for end in (above, row)]
        seams[above, column - 1, 0] = [*seam, *_points(loop, seams), *reversed(seam)]
    return [np.array(_points(loop, seams)) - 1.5 for loop in outer]


def _loops(padded: NDArray[np.bool_]) -> list[list[_Edge]]:
    """Return the closed ways along all edges, around parts and around holes."""
    edges: dict[_Edge, None] = {}
    for way, ((down, right), beyond) in enumerate(_SIDES):
        edge = padded & ~np.roll(padded, (-beyond[0], -beyond[1]), (0, 1))
        edges.update(((row + down, column + right, way), None) for row, column in _where(edge))
    every, loops = frozenset(edges), []
    while edges:
        loop = [edges.popitem()[0]]
        while (following := _following(loop[-1], every)) != loop[0]:
            del edges[following]
            loop.append(following)
        loops.append(loop)
    return loops


def _where(edge: NDArray[np.bool_]) -> list[tuple[int, int]]:
    return [(row, column) for row, column in np.argwhere(edge).tolist()]


def _following(edge: _Edge, every: frozenset[_Edge]) -> _Edge:
    """Return the next edge; where two parts touch at a corner, the one of the same pixel."""
    row, column, way = edge
    row, column = row + _STEPS[way][0], column + _STEPS[way][1]
    ahead = ((row, column, (way + turn) % 4) for turn in (1, 0, 3))
    return next(one for one in ahead if one in every)


def _from_top(loop: list[_Edge]) -> list[_Edge]:
    """Let a hole's way begin after an edge at its top, which then is the last."""
    top = min((edge[0], place) for place, edge in enumerate(loop) if edge[2] == _LEFT)[1]
    return loop[top + 1 :] + loop[: top + 1]


def _points(loop: list[_Edge], seams: dict[_Edge, _Points]) -> _Points:
    """Return the corners of a way at which it turns, and what hangs on its edges."""
    points: _Points = []
    for (_, _, before), edge in zip([loop[-1], *loop], loop, strict=False):
        row, column, way = edge
        if way != before:
            points.append((row, column))
        points += seams.pop(edge, [])
    return points
