"""A run: its folder, its record, and how it is opened again."""
