"""Where an equation comes from: line, layer and name."""
