"""Hand-written backward passes: what attaches one to a function, and what proves it."""
