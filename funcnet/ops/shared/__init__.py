"""What chapters of ops share."""
