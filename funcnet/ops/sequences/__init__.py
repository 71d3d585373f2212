"""Ops along time: attention and recurrence."""
