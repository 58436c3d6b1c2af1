"""Maps lie where the scan that they are of has what they show."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from lamina.explain.scan import Prepared
from lamina.geometry import affine_along
from lamina.inference.predictor import Predictor
from lamina.volume import Volume
from small_bundles import small_bundle


@pytest.mark.parametrize("lean", [0.2, -0.4])
def test_what_a_network_passes_on_comes_back_to_its_place_in_a_tilted_scan(lean):
    smooth = gaussian_filter(np.random.default_rng(0).normal(size=(30, 36, 28)), 4)
    affine = affine_along("LIP", (1.0, 1.2, 0.8))
    affine[1, 0] = lean
    image = Volume(smooth[None].astype(np.float32), affine)
    plan = small_bundle("lightmedseg").plan
    predictor = Predictor(network=lambda batch: batch, plan=plan, resample_oblique=True)
    prepared = Prepared.of(image, predictor)
    upright = np.zeros((1, *prepared.alignment.source_shape), np.float32)
    prepared.apply(predictor.network, upright)
    own = np.empty_like(image.array)
    prepared.on_scan(upright, own)
    assert np.corrcoef(own.ravel(), smooth.ravel())[0, 1] > 0.98
