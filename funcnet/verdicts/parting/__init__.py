"""Where two functions part, forward or backward."""
