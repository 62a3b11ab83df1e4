"""What is kept and why: measures, filters, duplicates, contamination, and the verdicts that merge them."""
