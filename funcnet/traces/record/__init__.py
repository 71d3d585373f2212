"""What a trace holds: rows and their values."""
