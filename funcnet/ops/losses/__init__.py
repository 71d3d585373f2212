"""Ops that end in one number, and what they are made of."""
