"""A function run equation by equation, forward and back."""
