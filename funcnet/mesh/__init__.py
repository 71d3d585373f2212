"""One step on many devices: how arrays are split over them, and how processes work together."""
