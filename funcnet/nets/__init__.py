"""Whole networks, made of combinators and layers alone."""
