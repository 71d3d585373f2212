"""What a function keeps for its backward pass, and what would be kept under `jax.checkpoint`."""
