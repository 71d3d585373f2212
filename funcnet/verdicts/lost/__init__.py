"""Where a gradient is lost, and why."""
