"""The data card of a run: what it is made of, in Markdown for a hub and its readers."""
