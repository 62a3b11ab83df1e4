"""User-defined functions: identifying their code, loading it from a run's copy, and calling it safely."""
