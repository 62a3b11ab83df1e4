"""Grouping: which files belong together, in which order, and what joins them."""
