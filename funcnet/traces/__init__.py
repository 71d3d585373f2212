"""Any JAX function, opened: its primal, tangent and adjoint, with values, line by line."""
