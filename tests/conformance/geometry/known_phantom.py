"""A phantom without any symmetry on any grid, and a network that segments it without fault.

A scan turned over, or whose axes are swapped, would not be recognised. The image shows in one
channel per structure where that is, so that the network has nothing to learn.
"""

import itertools
from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from lamina.data.anatomy import draw_anatomy
from lamina.data.phantom import paint
from lamina.data.plan import Normalisation, Plan
from lamina.geometry import affine_from, check_same_grid, corner_distance, reorientation
from lamina.inference.predictor import Predictor
from lamina.labels import LabelSet
from lamina.volume import Volume

ORIENTATIONS = [
    "".join(letters)
    for pairs in itertools.permutations(("RL", "AP", "SI"))
    for letters in itertools.product(*pairs)
]
SEEN = {"liver": 1, "spleen": 2, "aorta": 7}
"""The phantom's structures and what they are labelled with; what lies round them is left out."""
WHOLE = draw_anatomy(np.random.default_rng(1), lesion=False)
ANATOMY = replace(WHOLE, shapes=tuple(s for s in WHOLE.shapes if s.tissue in SEEN))
MIDDLE = (np.array(ANATOMY.centre_of("liver")) + ANATOMY.centre_of("spleen")) / 2
LIVER = ANATOMY.centre_of("liver")
EXTENT_MM = np.array([290, 240, 230])
AT_LEAST = 0.85
"""Dice of what comes back from a grid whose voxels are up to twice as large."""


def shown_structures(batch):
    """A network that knows the answer: a channel shows where its structure is."""
    return np.concatenate([np.full_like(batch[:, :1], 0.5), batch], axis=1)


def plan(orientation, target_spacing, **changes):
    dims = len(orientation)
    fields = {
        "spatial_dims": dims,
        "channels": tuple(SEEN),
        "labels": LabelSet(values=SEEN),
        "orientation": orientation,
        "target_spacing": target_spacing,
        "normalisation": (Normalisation(scheme="ct", low=0, high=255, mean=0, std=255),) * 3,
        "network": "lightmedseg",
        "patch_size": (32,) * dims,
        "roi_size": (32,) * dims,
        "overlap": 0.25,
        "batch_size": 2,
        "mirror_axes": (),
        "epochs": 1,
        "steps_per_epoch": 1,
    }
    return Plan(**fields | changes)


def predictor(orientation, target_spacing, **changes):
    return Predictor(network=shown_structures, plan=plan(orientation, target_spacing, **changes))


def scan(affine, spatial_shape):
    """The patient on a grid: an image with a channel per structure, and the label map."""
    truth = paint(ANATOMY, affine, spatial_shape)[1]
    image = np.stack([255 * (truth == value) for value in SEEN.values()]).astype(np.uint8)
    return Volume(image, affine, "phantom"), truth


def scanned(orientation, spacing, degrees=(0, 0, 0), shape=None, middle=MIDDLE):
    """The same on a scanner's grid whose axes run as said, give or take a rotation."""
    shape = shape or tuple(int(size) for size in EXTENT_MM // spacing)
    affine = affine_from(spacing)
    affine[:3, :3] = turned(degrees) @ affine[:3, :3]
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    turn = reorientation(affine, orientation)
    return scan(turn.affine(affine, shape), tuple(shape[axis] for axis in turn.axes))


def turned(degrees):
    return Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()


def dices(found, truth):
    """Dice of each structure that is there."""
    pairs = [(found == value, truth == value) for value in SEEN.values() if (truth == value).any()]
    return np.array([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs])


def assert_lands(found, image, truth, at_least=AT_LEAST):
    assert found.array.shape == (1, *image.spatial_shape)
    assert found.unit == image.unit
    check_same_grid(found.affine, found.spatial_shape, image.affine, image.spatial_shape, "pair")
    distance = corner_distance(found.affine, found.spatial_shape, image.affine, image.spatial_shape)
    assert distance < 1e-3
    assert set(np.unique(found.array)) <= {0, *SEEN.values()}
    assert dices(found.array[0], truth).min() > at_least
