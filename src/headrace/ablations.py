"""Variants of a recipe, run with several seeds and compared: ablations as Arctic-SnowCoder's tables have them.

Every variant and seed is a run of its own below one folder. They share a store, so an artifact that does not differ is
built once: a varied selection reads no text again, a varied schedule samples no sequence again. Seeds decide the
weights that are drawn and the order of the rows, and not the documents, splits or held-out rows: differences between
variants are taken seed by seed.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from headrace import environment, evaluation, pipeline
from headrace.errors import UserError
from headrace.flow.storage import read_json, replacing
from headrace.recipe.load import load_recipe, parse_override, without_sources
from headrace.recipe.schema import HELD_OUT, Recipe
from headrace.report.comparison import Comparison, Variant, comparison_page
from headrace.run_folder import artifact

MOST_RUNS = 1000
_UNFIT = re.compile(r"[^\w.=+-]+")


@dataclass(frozen=True)
class Settings:
    """One variant: its name and its overrides, each ``key=value``."""

    name: str
    overrides: tuple[str, ...]


def settings(vary: Sequence[str], variants: Sequence[str]) -> list[Settings]:
    """The variants that a command names; the first is what the others are compared with.

    Args:
        vary: ``KEY=A,B,C`` each: the product of all; values in YAML.
        variants: ``NAME: KEY=VALUE; KEY=VALUE`` each, after those; a name alone is the recipe as it is.

    Raises:
        UserError: one cannot be read, none is named, or two have one name.
    """
    axes = [_axis(one) for one in vary]
    shorts = _short([key for key, _ in axes])
    found = []
    for chosen in itertools.product(*(values for _, values in axes)) if axes else ():
        pairs = list(zip(axes, chosen, strict=True))
        name = ", ".join(f"{shorts[key]}={_said(value)}" for (key, _), value in pairs)
        found.append(Settings(name, tuple(f"{key}={json.dumps(value)}" for (key, _), value in pairs)))
    found += [_named(one) for one in variants]
    if len(found) < 2:
        raise UserError(
            "There is nothing to compare.",
            "--vary",
            "Name at least two values, such as --vary stages.two.train.optimizer.learning_rate=1e-3,3e-4.",
        )
    names = [one.name for one in found]
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                f"Two variants are called {name!r}.",
                "--vary and --variant",
                "Name each value once, and each variant differently.",
            )
    return found


def _axis(text: str) -> tuple[str, list[Any]]:
    """A key and its values."""
    key, equals, listed = text.partition("=")
    try:
        values = yaml.safe_load(f"[{listed}]") if equals and key.strip() else None
    except yaml.YAMLError:
        values = None
    if not values:
        raise UserError(
            "What is varied must be KEY=VALUE,VALUE,...",
            f"--vary {text}",
            "Write it like --vary stages.two.sources.code.quality.top=0.1,0.3,1.",
        )
    return key.strip(), values


def _named(text: str) -> Settings:
    name, _, rest = text.partition(":")
    overrides = tuple(one.strip() for one in rest.split(";") if one.strip())
    if not name.strip():
        raise UserError(
            "A variant needs a name.", f"--variant {text}", "Write it like --variant 'random: quality.keep=null'."
        )
    for one in overrides:
        parse_override(one)
    return Settings(name.strip(), overrides)


def _short(keys: list[str]) -> dict[str, str]:
    """As little of each key's end as tells them apart."""
    shorts = {}
    for key in keys:
        parts = key.split(".")
        for count in range(1, len(parts) + 1):
            end = parts[-count:]
            if sum(other.split(".")[-count:] == end for other in keys) == 1 or count == len(parts):
                shorts[key] = ".".join(end)
                break
    return shorts


def _said(value: Any) -> str:
    return "null" if value is None else json.dumps(value) if isinstance(value, list | dict) else f"{value}"


@dataclass(frozen=True)
class Run:
    """One variant at one seed."""

    settings: Settings
    seed: int
    recipe: Recipe
    folder: Path


def planned(
    recipe: Path, chosen: Sequence[Settings], seeds: int, out: Path, overrides: Sequence[str] = ()
) -> list[Run]:
    """The runs, seed by seed, so that each seed's variants can be compared as soon as they are done.

    Args:
        recipe: the recipe's file.
        chosen: the variants.
        seeds: how many seeds.
        out: the folder of all runs.
        overrides: of every variant.

    Raises:
        UserError: a variant's recipe is wrong, trains nothing, or there would be more than :data:`MOST_RUNS`.
    """
    if len(chosen) * seeds > MOST_RUNS:
        raise UserError(
            f"These are {len(chosen) * seeds:,} runs.", "--vary", f"Vary less at once: at most {MOST_RUNS:,}."
        )
    runs = []
    for number, one in enumerate(chosen):
        loaded = load_recipe(recipe, [*overrides, *one.overrides])
        if loaded.model is None or not loaded.stages:
            raise UserError("The recipe trains no model, so there is nothing to compare.", str(recipe), "Add `model`.")
        if loaded.split.validation == 0 and not loaded.held_out:
            raise UserError(
                "Nothing is held out, so there is no loss to compare.",
                str(recipe),
                "Set split.validation, say to 0.02.",
            )
        name = f"{number + 1}-{_UNFIT.sub('_', one.name)[:60]}"
        for seed in range(1, seeds + 1):
            own = [f"stages.{stage.name}.seed={seed}" for stage in loaded.stages]
            if loaded.model.weights is None and loaded.model.huggingface is None:
                own.append(f"model.init.seed={seed}")
            seeded = load_recipe(recipe, [*overrides, *one.overrides, *own])
            runs.append(Run(one, seed, seeded, out / f"seed{seed}" / name))
    return sorted(runs, key=lambda run: run.seed)


def compare(
    runs: Sequence[Run],
    out: Path,
    stage: str | None = None,
    tasks: Sequence[str] = (),
    unsafe: bool = False,
    workers: int | None = None,
    memory: int | None = None,
    listening: Callable[[Run, int], Any] | None = None,
) -> Comparison:
    """Do what is missing of all runs, and compare them; writes ``comparison.json`` and ``comparison.html``.

    Args:
        runs: from :func:`planned`.
        out: the folder of all runs; the shared store is its ``store``.
        stage: the stage to compare after; None: the last. What only later stages need is not built, and
            synthetic sources that no run needs for it are left out.
        tasks: code tasks to solve as ``headrace eval`` does, greedily.
        unsafe: run the programs of these even where they cannot be isolated.
        workers: as in :func:`headrace.pipeline.run`.
        memory: likewise.
        listening: given a run and its number, a context manager whose value hears the run's events.

    Raises:
        UserError: as :func:`headrace.pipeline.run`; or a stage does not exist.
    """
    stage = stage or runs[0].recipe.stages[-1].name
    for run in runs:
        if stage not in [one.name for one in run.recipe.stages]:
            known = ", ".join(one.name for one in run.recipe.stages)
            raise UserError(f"There is no stage {stage!r}.", "--stage", f"The stages are {known}.")
    until = None if stage == runs[0].recipe.stages[-1].name else f"evaluation-{stage}"
    left_out = unneeded(runs, stage)
    if left_out:
        runs = [replace(run, recipe=without_sources(run.recipe, left_out)) for run in runs]
    values: list[dict[str, float]] = []
    for number, run in enumerate(runs):
        with nullcontext() if listening is None else listening(run, number) as listener:
            pipeline.run(run.recipe, run.folder, workers, memory, until, listener, store=out / "store")
        solved = solve(run.folder, stage, tasks, unsafe, workers) if tasks else {}
        values.append({**measured(run.folder, stage), **solved})
    compared = gathered(runs, values, stage, left_out)
    with replacing(out / "comparison.json") as path:
        path.write_text(json.dumps(compared.to_json(), indent=1, ensure_ascii=False))
    with replacing(out / "comparison.html") as path:
        path.write_text(comparison_page(compared), encoding="utf-8")
    return compared


def unneeded(runs: Sequence[Run], stage: str) -> tuple[str, ...]:
    """The synthetic sources that no run needs for a stage. What is left out is left out of all, so that their documents
    do not differ."""
    needed = {name for run in runs for name in set(run.recipe.synthetic) - run.recipe.idle(stage)}
    return tuple(dict.fromkeys(name for run in runs for name in run.recipe.synthetic if name not in needed))


def measured(run: Path, stage: str) -> dict[str, float]:
    """What a run measured of a stage's model on held-out rows, by name."""
    evaluation = artifact(run, "evaluation", stage)
    held_out: Any = read_json(evaluation.file_path("evaluation.json"))
    held_out = held_out["held_out"]
    values = {"held-out loss, nats per token": float(held_out["loss"])}
    for name, told in held_out["sources"].items():
        if "bits_per_byte" in told:
            values[f"bits per byte, {name}"] = float(told["bits_per_byte"])
    for kind, told in (held_out.get("infilling") or {}).items():
        if told["holes"]:
            values[f"infilled exactly, {kind}, %"] = 100 * told["exact"] / told["holes"]
    return values


def solve(run: Path, stage: str, tasks: Sequence[str], unsafe: bool, workers: int | None) -> dict[str, float]:
    """Solve code tasks greedily with a run's model, unless that was done; pass@1 by name."""
    target = evaluation.find_target(run, stage)
    found = evaluation.find_tasks(tasks, run, "bigcode")
    programs = workers or environment.cores()
    request = evaluation.Request(1, 0.0, 0.95, (1,), None, 512, 0, programs, unsafe, target.results)
    results = evaluation.evaluate(target, found, [], request, lambda what, done, total: None)
    return {f"pass@1, {name}, %": 100 * told["pass@k"][1]["value"] for name, told in results.items()}


def gathered(
    runs: Sequence[Run], values: Sequence[dict[str, float]], stage: str, left_out: tuple[str, ...] = ()
) -> Comparison:
    """The comparison of runs by what was measured of each."""
    variants: dict[str, list[int]] = {}
    for number, run in enumerate(runs):
        variants.setdefault(run.settings.name, []).append(number)
    made = []
    for name, numbers in variants.items():
        common = [key for key in values[numbers[0]] if all(key in values[number] for number in numbers)]
        held_out = tuple(_held_out(runs[number].folder) for number in numbers)
        each = {key: [values[number][key] for number in numbers] for key in common}
        made.append(Variant(name, runs[numbers[0]].settings.overrides, each, held_out))
    return Comparison(runs[0].recipe.name, stage, tuple(dict.fromkeys(run.seed for run in runs)), tuple(made), left_out)


def _held_out(run: Path) -> str:
    """A name for a run's held-out rows: their digests."""
    rows = artifact(run, "sequence", HELD_OUT)
    return " ".join(str(entry["digest"]) for entry in rows.manifest.shards)
