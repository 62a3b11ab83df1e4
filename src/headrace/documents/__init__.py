"""Documents: raw files are read, normalized, named by their content and written once, in evenly sized shards."""
