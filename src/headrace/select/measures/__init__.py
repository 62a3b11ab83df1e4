"""Measures: what filters need to know about each document, computed once from its text."""
