"""Data: sets by name and from files, text, and the batches of an epoch."""
