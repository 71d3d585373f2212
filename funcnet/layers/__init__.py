"""Parameters plus one op: CamelCase functions that return a `Layer`."""
