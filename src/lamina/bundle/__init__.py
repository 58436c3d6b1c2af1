"""The portable model: one file that holds a trained network and all that is needed to use it."""

from lamina.bundle.card import model_card
from lamina.bundle.format import load_bundle, save_bundle
from lamina.bundle.model import VIT, Bundle, build_network, transformer_weights

__all__ = [
    "VIT",
    "Bundle",
    "build_network",
    "load_bundle",
    "model_card",
    "save_bundle",
    "transformer_weights",
]
