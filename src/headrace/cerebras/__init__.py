"""CrystalCoder's own params files, of the Cerebras Model Zoo: every key, and the recipe that says the same."""
