"""Ops that bring arrays to mean 0 and variance 1, or to length 1."""
