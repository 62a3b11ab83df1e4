"""Why: one document found, every decision about it explained, and the documents that are like it."""
