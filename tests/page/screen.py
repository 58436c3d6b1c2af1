"""What a browser shows of a scan, as tests look at it."""

import io

import numpy as np
from PIL import Image

READY = "#screen[data-ready]"
BORDERS = ("left", "right", "top", "bottom")


def pixels(page, selector="#planes-box"):
    shot = page.locator(selector).screenshot()
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)
