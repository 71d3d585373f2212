"""funcnet: functional neural networks on JAX, with backpropagation written by hand."""
