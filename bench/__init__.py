"""Side-by-side benchmarks against peers from PyPI: ``python -m bench`` runs all, ``python -m bench NAME`` one."""
