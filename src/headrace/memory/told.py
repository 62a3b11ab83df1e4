"""The memory of a stage as text of 80 columns, and as values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from textwrap import fill
from typing import Any

from headrace.memory.choice import Advice, advice, chosen
from headrace.memory.estimate import TERMS, Estimate, estimate
from headrace.memory.fit import fits, longest
from headrace.memory.machines import GIB, Machine
from headrace.memory.settings import Settings
from headrace.memory.shape import Shape
from headrace.memory.stage import settings_of
from headrace.recipe.schema import Stage

WIDTH, BAR = 80, 34


@dataclass(frozen=True)
class Told:
    """The memory of a stage on a machine.

    Attributes:
        stage: its name.
        shape: its model.
        settings: how it is trained.
        machine: on what.
        found: the estimate.
        longest: the longest row that fits.
        advice: what would let longer ones fit, the best first.
        notes: what was assumed.
    """

    stage: str
    shape: Shape
    settings: Settings
    machine: Machine
    found: Estimate
    longest: int
    advice: tuple[Advice, ...]
    notes: tuple[str, ...] = ()

    @staticmethod
    def of(stage: Stage, shape: Shape, machine: Machine, notes: list[str]) -> Told:
        """Everything about a stage; `long: auto` is decided first.

        Raises:
            UserError: its processes cannot be divided as it says.
        """
        train, where = stage.train, f"stages.{stage.name}.train"
        if train.long.auto:
            train, why = chosen(train, stage.sequence_length, shape, machine, where)
            notes = [*notes, why]
        settings = settings_of(train, stage.sequence_length, shape, machine, where)
        more = tuple(advice(train, stage.sequence_length, shape, machine))
        found, most = estimate(shape, settings), longest(shape, settings, machine)
        return Told(stage.name, shape, settings, machine, found, most, more, tuple(notes))

    @property
    def fits(self) -> bool:
        """Whether it fits, with a margin."""
        return fits(self.found, self.machine)

    def to_json(self) -> dict[str, Any]:
        """All of it; bytes as whole numbers."""
        peak = self.found.peak
        return {
            "stage": self.stage,
            "parameters": self.shape.parameters,
            "machine": asdict(self.machine) | {"usable": self.machine.usable},
            "settings": asdict(self.settings),
            "peak": {"moment": peak.name, "total": peak.total, "terms": dict(peak.terms)},
            "moments": [{"moment": m.name, "total": m.total, "terms": dict(m.terms)} for m in self.found.moments],
            "host": dict(self.found.host) | {"total": self.found.host_total},
            "fits": self.fits,
            "longest": self.longest,
            "advice": [asdict(one) for one in self.advice],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        parts = self._head(), self._terms(), self._moments(), self._end(), [fill(note, WIDTH) for note in self.notes]
        return "\n\n".join("\n".join(part) for part in parts if part)

    def _head(self) -> list[str]:
        s, machine = self.settings, self.machine
        many = "" if machine.processes == 1 else f"{machine.processes} x "
        over = "" if machine.nodes == 1 else f" on {machine.nodes} nodes"
        ways = [
            "bf16" if s.bits16 else "fp32",
            f"recompute: {s.recompute}",
            *([f"tile_mlp: {s.tile_mlp:,}"] if s.tile_mlp else []),
            *(["sharded"] if s.sharded else []),
            *([f"tile_loss: {s.tile_loss:,}"] if s.tile_loss else []),
            *(["offload_checkpoints"] if s.offload_checkpoints else []),
            *(["offload_optimizer"] if s.offload_optimizer else []),
            *(["offload_parameters"] if s.offload_parameters else []),
            *([f"sequence_parallel: {s.sequence}{' (ring)' * s.ring}"] if s.sequence > 1 else []),
            *([f"tensor_parallel: {s.tensor}"] if s.tensor > 1 else []),
        ]
        rows = "a row" if s.rows == 1 else f"{s.rows} rows"
        passes = "" if s.passes == 1 else f", {s.passes} passes a step"
        return [
            f"Stage {self.stage}: rows of {s.length:,} tokens, {self.shape.parameters:,} parameters",
            f"{many}{machine.name}{over}, {_gib(machine.memory)}{' each' if many else ''}; {rows} a pass in each"
            f" process{passes}",
            fill(", ".join(ways), WIDTH),
        ]

    def _terms(self) -> list[str]:
        peak = self.found.peak
        most = max(peak.terms.values())
        lines = [f"Peak of a process, estimated, at the {peak.name}:"]
        for term in TERMS:
            size = peak.terms[term]
            if size:
                lines.append(f"  {term:<15}{_gib(size):>12}  {'#' * round(BAR * size / most)}".rstrip())
        verdict = "fits" if peak.total <= self.machine.usable else "does not fit"
        lines.append(f"  {'total':<15}{_gib(peak.total):>12}  of {_gib(self.machine.usable)} usable: {verdict}")
        if self.found.host:
            each = self.machine.devices * self.found.host_total
            parts = ", ".join(f"{name} {_gib(size)}" for name, size in self.found.host.items())
            lines += fill(f"Host memory of a process: {parts};", WIDTH).splitlines()
            known = self.machine.host
            told = "" if known is None else f" of {_gib(known)}: {'fits' if each <= known else 'does not fit'}"
            lines.append(f"of each node: {_gib(each)}{told}")
        return lines

    def _moments(self) -> list[str]:
        peak = self.found.peak
        rows = [(("> " if m is peak else "  ") + m.name, _gib(m.total)) for m in self.found.moments]
        return ["Through a step:", *(f"{name:<50}{size:>12}" for name, size in rows)]

    def _end(self) -> list[str]:
        if not self.longest:
            lines = [f"No row fits {self.machine.name} with these settings."]
        else:
            lines = [f"The longest row that fits: {self.longest:,} tokens."]
        largest = max(("weights", *TERMS), key=lambda term: self.found.peak.terms[term])
        if self.advice:
            lines.append(f"Largest term: {largest}. Longer rows would fit with")
            lines += [f"  {one.switch:<52}{one.longest:>14,} tokens" for one in self.advice]
        return lines


def _gib(n: int) -> str:
    return f"{n / GIB:,.2f} GiB" if n < 100 * GIB else f"{n / GIB:,.0f} GiB"
