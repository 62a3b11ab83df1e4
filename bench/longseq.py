"""Memory and time of a step over a row's length: each idea of ``train.long`` alone, all, and plain transformers.

All in float32: few CPUs multiply bfloat16, and which idea saves what is the same in both.

Alone, ``python -m bench.longseq --out FOLDER --lengths 2048,4096`` also writes the table and the plot.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from bench.counted import Counted
from bench.harness import Result, Setting, require, result
from bench.training_peers import transformers_fp32
from headrace.model.transformer import Transformer
from headrace.recipe.model import ModelConfig
from headrace.recipe.training import TrainSection
from headrace.train.parallel import Placed
from headrace.train.world import World

# 20 million parameters, most of them a vocabulary as large as Llama 3's.
CONFIG = ModelConfig(vocab_size=131_072, layers=12, width=128, heads=4, ffn=512, tied=True)
LENGTHS = tuple(1 << n for n in range(11, 18))  # 2 k to 128 k
SHORT = (128, 256)  # where there is little text, as in tests
SECONDS = 900  # of processor time: a case whose next length would take longer ends before it
ROOM = 0.6  # of the memory that is free when a case begins: what it may take
TWICE = 4096  # up to here a second step is timed; of longer rows the first, which is counted too, is all there is
PEER, PLAIN = "transformers, fp32", "transformers"
BESIDE = 4096  # at this length, steps with and without an idea are timed in turns
BEFORE_AND_AFTER = (("tile_loss", "untiled"), ("tile_mlp", "untiled"), ("all", "recompute"))
TILE = 512  # logits of so many tokens: what one chunk of the loss has by default at this vocabulary

# Name and settings; "L" is the row's length, so that all logits exist at once as they do in transformers.
RECOMPUTED: dict[str, Any] = {"recompute": "full"}
CASES: dict[str, dict[str, Any]] = {
    "untiled": {"long": {"tile_loss": "L"}},
    "tile_loss": {"long": {"tile_loss": TILE}},
    "tile_mlp": {"long": {"tile_loss": "L", "tile_mlp": "auto"}},
    "recompute": {**RECOMPUTED, "long": {"tile_loss": "L"}},
    "recompute, offload_checkpoints": {**RECOMPUTED, "long": {"tile_loss": "L", "offload_checkpoints": True}},
    "recompute, tile_loss": {**RECOMPUTED, "long": {"tile_loss": TILE}},
    "all": {**RECOMPUTED, "long": {"tile_loss": TILE, "tile_mlp": "auto", "offload_checkpoints": True}},
}


@dataclass(frozen=True)
class Measured:
    """Forward and backward pass of one row.

    Attributes:
        case: which; ``transformers`` and ``transformers, recomputed`` are the peer.
        length: its tokens.
        device: bytes of tensors at the peak, without what a GPU's host would hold.
        resident: bytes by which the process grew at the peak, the host's included.
        seconds: processor time, of a step like the one that was counted if the row is short, else of that.
        loss: nats per token.
    """

    case: str
    length: int
    device: int
    resident: int
    seconds: float
    loss: float


def built(case: str, length: int) -> tuple[Callable[[Tensor], Tensor], Callable[[], int]]:
    """A model's mean loss of rows [1, L + 1], and how many bytes it has in host memory."""
    if case.startswith(PLAIN):
        peer = transformers_fp32(CONFIG, length, compiled=False)
        if case.endswith("recomputed"):
            peer.model.gradient_checkpointing_enable()  # type: ignore[operator]
            peer.model.train()
        return lambda tokens: peer.loss(tokens[:, :-1], tokens[:, 1:]), lambda: 0
    about = {**CASES[case], "long": {k: length if v == "L" else v for k, v in CASES[case]["long"].items()}}
    with torch.device("meta"):
        model = Transformer(CONFIG)
    placed = Placed(model, TrainSection.model_validate(about), World())
    model.initialise(1)
    weights = torch.full((length,), 1 / length)
    store = placed.checkpoints

    def loss(tokens: Tensor) -> Tensor:
        found: Tensor = placed(tokens[:, :-1], targets=tokens[:, 1:], weights=weights)[0]
        return found

    return loss, lambda: 0 if store is None else store.on_host


def _measure(case: str, length: int, pipe: Any) -> None:
    loss, on_host = built(case, length)
    tokens = torch.randint(0, int(CONFIG.vocab_size or 0), (1, length + 1), generator=torch.Generator().manual_seed(1))
    process = psutil.Process()
    Path("/proc/self/clear_refs").write_text("5")  # the highest resident size begins again
    before = process.memory_info().rss
    begun = time.process_time()
    with Counted(on_host) as seen:
        found = loss(tokens)
        found.backward()
    seconds = time.process_time() - begun
    status = Path("/proc/self/status").read_text()
    highest = int(status.split("VmHWM:")[1].split()[0]) * 1024
    if length <= TWICE:
        begun = time.process_time()
        loss(tokens).backward()
        seconds = time.process_time() - begun
    pipe.send(Measured(case, length, seen.peak, highest - before, seconds, float(found.detach())))


def measured(case: str, length: int) -> Measured | None:
    """One case in a process of its own; None if it was killed, as one is that wants more memory than there is."""
    fork = multiprocessing.get_context("fork")  # torch is imported already
    here, there = fork.Pipe(duplex=False)
    child = fork.Process(target=_measure, args=(case, length, there))
    child.start()
    there.close()
    try:
        found: Measured | None = here.recv()
    except EOFError:
        found = None
    child.join()
    return found


def goes_on(found: list[Measured], length: int) -> bool:
    """Whether a case at a length should fit into what memory is free, and end in time, by the length before."""
    if not found:
        return True
    times = length / found[-1].length
    most = max(found[-1].resident, found[-1].device) * times
    return most <= ROOM * psutil.virtual_memory().available and found[-1].seconds * times**2 <= SECONDS


def slope(found: list[Measured]) -> float:
    """Bytes on the device that one more token takes, between the two longest rows."""
    a, b = found[-2:]
    return (b.device - a.device) / (b.length - a.length)


def run(setting: Setting) -> Iterator[Result]:
    """Memory of each length and case beside the peer's, how memory grows, and what tiles cost."""
    yield from rows(setting, everything(LENGTHS if setting.mb >= 8 else SHORT))


def everything(
    lengths: tuple[int, ...], save: Callable[[dict[str, list[Measured]]], None] = lambda found: None
) -> dict[str, list[Measured]]:
    """All cases, each as far as it goes, at one length after the other; their losses agree within rounding.

    Args:
        lengths: ascending.
        save: called whenever there is more.
    """
    found: dict[str, list[Measured]] = {case: [] for case in (PLAIN, f"{PLAIN}, recomputed", *CASES)}
    ended: set[str] = set()
    for length in lengths:
        for case, ones in found.items():
            one = measured(case, length) if case not in ended and goes_on(ones, length) else None
            if one is None:
                ended.add(case)
                continue
            print(one, file=sys.stderr, flush=True)
            ones.append(one)
            peer = next((other for other in found[PLAIN] if other.length == length), one)
            require(abs(one.loss - peer.loss) < 1e-4 * peer.loss, f"the loss of {case} is {one.loss}, not {peer.loss}")
            save(found)
    return found


def alternating(length: int, cases: tuple[str, ...], rounds: int = 3) -> dict[str, list[float]]:
    """Seconds of processor time of a step of each case, in turns, so that what else runs slows all alike."""
    tokens = torch.randint(0, int(CONFIG.vocab_size or 0), (1, length + 1), generator=torch.Generator().manual_seed(1))
    steps = {case: built(case, length)[0] for case in cases}
    seconds: dict[str, list[float]] = {case: [] for case in cases}
    for round_ in range(rounds + 1):  # the first, in which memory is taken, does not count
        for case, loss in steps.items():
            begun = time.process_time()
            loss(tokens).backward()
            if round_:
                seconds[case].append(time.process_time() - begun)
    return seconds


def rows(setting: Setting, found: dict[str, list[Measured]]) -> Iterator[Result]:
    """The rows of the benchmark's table."""
    plain = found[PLAIN]
    for case in CASES:
        for one, peer in zip(found[case], plain, strict=False):
            name = f"long-rows, {case}: peak of a step, L = {one.length}"
            yield result(setting, name, PEER, "GB", [one.device / 1e9], [peer.device / 1e9])
        if len(found[case]) > 1 and len(plain) > 1:
            grown = [slope(found[case]) / 1e3], [slope(plain) / 1e3]
            target = 8 if case == "all" else None
            yield result(setting, f"long-rows, {case}: a million tokens more", PEER, "GB", *grown, target)
    length = min(BESIDE, max(one.length for one in found["untiled"]))
    seconds = alternating(length, ("untiled", "tile_loss", "tile_mlp", "recompute", "all"))
    for case, whole in BEFORE_AND_AFTER:
        name = f"long-rows, {case}: processor time of a step, L = {length}"
        yield result(setting, name, f"headrace {whole}", "s", seconds[case], seconds[whole], 1 / 1.15)


def main() -> None:
    """Measure, and write longseq.json, longseq.md and longseq.svg."""
    from bench.longseq_plot import draw, table

    parser = argparse.ArgumentParser(prog="python -m bench.longseq", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--lengths", type=lambda text: tuple(map(int, text.split(","))), default=LENGTHS)
    asked = parser.parse_args()

    def save(found: dict[str, list[Measured]]) -> None:
        told = {case: [vars(one) for one in ones] for case, ones in found.items()}
        (asked.out / "longseq.json").write_text(json.dumps(told, indent=1) + "\n")
        (asked.out / "longseq.md").write_text(table(told))

    everything(asked.lengths, save)
    print((asked.out / "longseq.md").read_text())
    draw(json.loads((asked.out / "longseq.json").read_text()), asked.out / "longseq.svg")


if __name__ == "__main__":
    main()
