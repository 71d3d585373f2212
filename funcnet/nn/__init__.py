"""The protocol of layers and the combinators that make networks of them."""
