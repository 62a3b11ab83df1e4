"""Documents: raw files read, normalised, named by content and written once, in shards of even size."""
