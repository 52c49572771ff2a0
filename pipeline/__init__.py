"""LakeLens: label and embed every image of an image lake with a Vision Transformer, on Ray."""

__version__ = "0.1.0"
