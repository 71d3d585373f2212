"""Traps that a function holds, found before they bite."""
