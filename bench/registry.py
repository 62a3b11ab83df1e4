"""The benchmarks by name: each a module with ``run(setting)``, which yields results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module

from bench.harness import Result, Setting

# Name -> module, and whether more than one core makes sense for it.
BENCHMARKS: dict[str, tuple[str, bool]] = {
    "signature": ("bench.signature", True),
    "signature-datasketch": ("bench.signature_datasketch", True),
    "exact-dedup": ("bench.exact_dedup", False),
    "tokenise": ("bench.tokenise", True),
    "decode": ("bench.decode", False),
    "verdicts": ("bench.verdicts", True),
    "raw-to-sequence": ("bench.raw_to_sequence", True),
    "sequence": ("bench.sequence", True),
    "loader": ("bench.loader", False),
    "seek": ("bench.seek", False),
    "first-use": ("bench.first_use", False),
    "scaling": ("bench.scaling", False),
}


def runner(name: str) -> Callable[[Setting], Iterator[Result]]:
    """The function of a benchmark; imports what it needs."""
    run: Callable[[Setting], Iterator[Result]] = import_module(BENCHMARKS[name][0]).run
    return run
