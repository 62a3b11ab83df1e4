"""The recipe: its schema, reading and writing it, presets."""
