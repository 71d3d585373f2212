"""Training: the compiled step, the loop around it, the data before it and the pictures after it."""
