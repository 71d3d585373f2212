"""What is inside a jaxpr, and how to walk over it."""
