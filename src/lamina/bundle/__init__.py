"""The portable model: one file that holds a trained network and all that is needed to use it."""

from lamina.bundle.card import model_card
from lamina.bundle.format import load_bundle, save_bundle
from lamina.bundle.model import Bundle, build_network

__all__ = ["Bundle", "build_network", "load_bundle", "model_card", "save_bundle"]
