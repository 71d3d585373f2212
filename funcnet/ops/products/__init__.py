"""Ops that are matrix products."""
