"""Exact and near-duplicates across all sources: shingles, MinHash, bands, star edges, connected components."""
