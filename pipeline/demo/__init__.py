"""A demonstration: a generated image lake and a small vision transformer trained on its classes."""
