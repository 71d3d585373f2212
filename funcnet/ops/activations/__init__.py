"""Ops that act on each element or each row, and dropout."""
