"""Verdicts: which documents are kept, which are removed and why, and each document's split."""
