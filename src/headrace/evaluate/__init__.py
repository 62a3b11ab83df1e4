"""Evaluation: held-out loss per source, and generated samples for people to read."""
