"""Where a NaN or an Inf is born, and how it comes to the output or the gradient."""
