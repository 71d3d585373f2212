"""Weights from other libraries and to them."""
