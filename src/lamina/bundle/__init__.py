"""The portable model: one file that holds a trained network and all that is needed to use it."""

from lamina.bundle.card import model_card
from lamina.bundle.ensemble import Ensemble, joined, parted
from lamina.bundle.format import load_bundle, save_bundle
from lamina.bundle.model import VIT, Bundle, build_network, own_weights, transformer_weights

__all__ = [
    "VIT",
    "Bundle",
    "Ensemble",
    "build_network",
    "joined",
    "load_bundle",
    "model_card",
    "own_weights",
    "parted",
    "save_bundle",
    "transformer_weights",
]
