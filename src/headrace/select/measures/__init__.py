"""Measures: what filters ask of each document, counted from its text once."""
