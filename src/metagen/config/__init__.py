"""The configuration: where it lies, its schema, what it may name, its help."""
