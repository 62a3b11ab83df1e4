"""Why: find a document, explain every decision about it, and find similar documents."""
