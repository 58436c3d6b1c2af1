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
_TURNS = np.array([1, 0, 3])
"""Changes of direction, the first that there is being the way on around the same pixel."""
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
    starts = np.zeros((*padded.shape, len(_STEPS)), np.bool_)
    for way, (corner, beyond) in enumerate(_SIDES):
        edge = padded & ~np.roll(padded, (-beyond[0], -beyond[1]), (0, 1))
        starts[..., way] = np.roll(edge, corner, (0, 1))
    edges = np.argwhere(starts)
    following = _following(starts, edges).tolist()
    corners: list[_Edge] = [(row, column, way) for row, column, way in edges.tolist()]
    loops, passed = [], [False] * len(corners)
    for first in range(len(corners)):
        loop, number = [], first
        while not passed[number]:
            passed[number] = True
            loop.append(corners[number])
            number = following[number]
        if loop:
            loops.append(loop)
    return loops


def _following(starts: NDArray[np.bool_], edges: NDArray[np.int_]) -> NDArray[np.int32]:
    """Return the number of each edge's next; where two parts touch, the one of the same pixel.

    Args:
        starts: Whether an edge starts at a corner in a direction, ``(rows, columns, 4)``.
        edges: The places at which it holds, ``(N, 3)``.
    """
    row, column = (edges[:, :2] + np.array(_STEPS)[edges[:, 2]]).T[..., None]
    ways = (edges[:, 2:] + _TURNS) % len(_STEPS)
    first = starts[row, column, ways].argmax(axis=1)
    numbers = np.zeros(starts.shape, np.int32)
    numbers[starts] = np.arange(len(edges))
    found: NDArray[np.int32] = numbers[row, column, ways][np.arange(len(edges)), first]
    return found


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
