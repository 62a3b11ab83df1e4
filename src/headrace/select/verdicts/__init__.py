"""Verdicts: what is kept, what is removed and why, and the split of each document."""
