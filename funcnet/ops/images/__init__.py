"""Ops over windows and edges of images, in any number of dimensions."""
