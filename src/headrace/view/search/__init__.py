"""Searching documents: by name, by text, and for what of a text stands in them."""
