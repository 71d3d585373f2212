"""Compiled probes: a function's values looked at while it runs as it is."""
