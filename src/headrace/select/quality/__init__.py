"""Annotators, which score documents: trained on examples or given, applied to the whole corpus, and looked at."""
