"""What is to be said of a gradient: its rules, its losses, its traps, its memory and its cost."""
