"""Contamination: which documents contain benchmark items, how much of the item, and where."""
