"""Contamination: which documents hold items of a benchmark, with the item, the share of it found, and the place."""
