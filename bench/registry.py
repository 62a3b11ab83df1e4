"""The benchmarks by name: each a module with ``run(setting)``, which yields results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module

from bench.harness import Result, Setting


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Attributes:
        module: has ``run(setting)``, which yields results.
        all_cores: whether more than one core makes sense for it.
        one_core: whether one does.
        mb: millions of bytes of text that it takes by default. Whole runs take more, because each worker loads its
            kernels at each step, a second in all, which is not what their rates are to tell.
    """

    module: str
    all_cores: bool
    mb: float = 64
    one_core: bool = True


BENCHMARKS = {
    "signature": Benchmark("bench.signature", True),
    "signature-datasketch": Benchmark("bench.signature_datasketch", True),
    "exact-dedup": Benchmark("bench.exact_dedup", False, 300),
    "decontamination": Benchmark("bench.decontamination", True),
    "sort": Benchmark("bench.sort", True, 400),
    "tokenise": Benchmark("bench.tokenise", True),
    "decode": Benchmark("bench.decode", False),
    "equality": Benchmark("bench.equality", False, 215),  # comes to 203 MB of text
    "offsets": Benchmark("bench.offsets", False),
    "pathological": Benchmark("bench.pathological", False, 16),
    "quality": Benchmark("bench.quality", False, 24),
    "verdicts": Benchmark("bench.verdicts", True, 300),
    "raw-to-sequence": Benchmark("bench.raw_to_sequence", True, 300),
    "sequence": Benchmark("bench.sequence", True),
    "loader": Benchmark("bench.loader", False),
    "loader-url": Benchmark("bench.loader_url", False),
    "exports": Benchmark("bench.exports", False),
    "seek": Benchmark("bench.seek", False),
    "rows-page": Benchmark("bench.rows_page", False),
    "limits-page": Benchmark("bench.limits_page", False),
    "view-pages": Benchmark("bench.view_pages", True, one_core=False),
    "view-memory": Benchmark("bench.view_memory", True, one_core=False),
    "view-search": Benchmark("bench.view_search", True, 100, one_core=False),
    "token-files": Benchmark("bench.token_files", False),
    "first-use": Benchmark("bench.first_use", False),
    "two-processes": Benchmark("bench.two_processes", False),
    "training": Benchmark("bench.training", True),
    "training-loop": Benchmark("bench.training_loop", True),
    "training-gpu": Benchmark("bench.training_gpu", False),
    "long-rows": Benchmark("bench.longseq", False),
    "long-rows-gpu": Benchmark("bench.longseq_gpu", False),
    "scaling": Benchmark("bench.scaling", False, 800),
    "grow": Benchmark("bench.grow", True, 1000),
    "steps": Benchmark("bench.steps", False, 300),
}


def runner(name: str) -> Callable[[Setting], Iterator[Result]]:
    """The function of a benchmark; imports what it needs."""
    run: Callable[[Setting], Iterator[Result]] = import_module(BENCHMARKS[name].module).run
    return run
