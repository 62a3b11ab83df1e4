"""What is kept and why: measures, duplicates, contamination, the verdicts that merge them, and `why`."""
