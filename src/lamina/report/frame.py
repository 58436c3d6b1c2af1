"""Small pictures of one case, always of the same slices: how a network learns to see it."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from lamina.labels import IGNORE_INDEX, LabelSet
from lamina.report.drawing import Colour
from lamina.report.overlay import label_colours
from lamina.report.slices import View, as_shown, planes_of, to_screen, view_of, window_of
from lamina.volume import Volume

# Lengths in pixels.
PANEL = 288
GAP = 6
TEXT = 14
SWATCH = 10
DEPTH = 2
"""Thickness of the predicted outline."""

INK = (232, 234, 237)
GREY_LEVELS = 255


class Frames:
    """Draws what is predicted for a case on the slices that show most of its reference.

    Args:
        image: As prepared; channel 0 is shown, or the colours of a photograph.
        reference: Class indices ``(1, *S)``.
        labels: Names of the classes.
    """

    def __init__(self, image: Volume, reference: NDArray[np.uint8], labels: LabelSet) -> None:
        known = np.where(reference == IGNORE_INDEX, 0, reference).astype(np.uint8)
        self.affine = image.affine
        self.views = [view_of(image, known, None, plane) for plane in planes_of(image)]
        self.colours = _coloured(label_colours(labels), np.unique(known))
        window = window_of(image, ct=False)
        longest = max(side for view in self.views for side in view.size_mm)
        self.sizes = [_pixels(view, PANEL / longest) for view in self.views]
        self.grounds = [
            _ground(view, size, window) for view, size in zip(self.views, self.sizes, strict=True)
        ]

    def draw(self, predicted: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a picture ``(rows, columns, 3)``, 0..255: the planes side by side, and a key.

        The reference is outlined in white from outside, the prediction in colour from inside, so
        that where they agree both are seen.

        Args:
            predicted: Class indices ``(1, *S)`` on the grid of the image.
        """
        panels = []
        for view, size, ground in zip(self.views, self.sizes, self.grounds, strict=True):
            turned = to_screen(predicted, self.affine, view.plane)[0][:, :, view.index]
            panel = ground.copy()
            for index, (_, colour) in self.colours.items():
                _paint(panel, view.segmentation == index, turned == index, size, colour)
            panels.append(panel)
        height = max(len(panel) for panel in panels)
        padded = [_centred(panel, height) for panel in panels]
        sheet = np.concatenate(padded, axis=1)
        return np.concatenate([sheet, self._key(sheet.shape[1])])

    def _key(self, width: int) -> NDArray[np.uint8]:
        """Return rows that say which colour is which structure."""
        font = ImageFont.load_default(TEXT)
        entries = [("reference", INK), *self.colours.values()]
        places, left, row = [], GAP, 0
        for name, _ in entries:
            needed = int(SWATCH + GAP + font.getlength(name) + 2 * GAP)
            if left > GAP and left + needed > width:
                left, row = GAP, row + 1
            places.append((left, row * (TEXT + GAP) + GAP))
            left += needed
        key = Image.new("RGB", (width, (row + 1) * (TEXT + GAP) + GAP))
        pen = ImageDraw.Draw(key)
        for (name, colour), (x, y) in zip(entries, places, strict=True):
            pen.rectangle((x, y + 3, x + SWATCH, y + 3 + SWATCH), fill=colour)
            pen.text((x + SWATCH + GAP, y), name, fill=INK, font=font)
        return np.asarray(key)


def _coloured(
    colours: Mapping[str, Colour], present: NDArray[np.uint8]
) -> dict[int, tuple[str, tuple[int, int, int]]]:
    """Return name and colour, 0..255, of each class; beyond a few, only of those in the case."""
    few = len(colours) <= len(present) + 4
    shades = {
        index: (name, (round(255 * red), round(255 * green), round(255 * blue)))
        for index, (name, (red, green, blue)) in enumerate(colours.items(), start=1)
    }
    return {index: shade for index, shade in shades.items() if few or index in present}


def _pixels(view: View, scale: float) -> tuple[int, int]:
    """Return width and height on the picture."""
    height, width = (max(1, round(side * scale)) for side in view.size_mm)
    return width, height


def _ground(view: View, size: tuple[int, int], window: tuple[float, float]) -> NDArray[np.uint8]:
    ground = Image.fromarray(np.uint8(GREY_LEVELS * as_shown(view.image, window)))
    return np.array(ground.resize(size, Image.Resampling.BICUBIC).convert("RGB"))


def _paint(
    panel: NDArray[np.uint8],
    true: NDArray[np.bool_],
    found: NDArray[np.bool_],
    size: tuple[int, int],
    colour: tuple[int, int, int],
) -> None:
    if true.any():
        mask = _enlarged(true, size)
        panel[ndimage.binary_dilation(mask) & ~mask] = INK
    if found.any():
        mask = _enlarged(found, size)
        panel[mask & ~ndimage.binary_erosion(mask, iterations=DEPTH)] = colour


def _enlarged(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return a mask in the picture's pixels, its corners rounded."""
    grey = Image.fromarray(np.uint8(GREY_LEVELS * mask)).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(grey) > GREY_LEVELS // 2


def _centred(panel: NDArray[np.uint8], height: int) -> NDArray[np.uint8]:
    """Pad a panel to a height, and by a gap to both sides."""
    above = (height - len(panel)) // 2
    return np.pad(panel, ((above, height - len(panel) - above), (GAP // 2, GAP // 2), (0, 0)))
