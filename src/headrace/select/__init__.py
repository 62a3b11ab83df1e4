"""Selection: measures, duplicates, contamination, the verdicts that combine them, and `why`."""
