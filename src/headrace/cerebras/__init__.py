"""CrystalCoder's own params files, of the Cerebras Model Zoo: every key, the recipe that says the same, and its run."""
