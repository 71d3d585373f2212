"""How a network fares: scales, dead units, underflow, steps, and what to do about them."""
