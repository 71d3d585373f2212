"""A rule beside its primal: every value and every gradient, in every way JAX can run it."""
