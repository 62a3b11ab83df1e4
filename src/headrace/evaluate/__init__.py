"""Evaluation: held-out loss per source, and samples that a person can read."""
