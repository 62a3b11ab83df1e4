"""``headrace eval``: a model on code tasks and on long texts."""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from headrace.cli.long_texts import by_position, needles
from headrace.cli.options import Json, one_of, place, whole
from headrace.cli.terminal import say, say_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.evaluate.code import Progress
    from headrace.evaluate.tasks import Prompts


def _numbers(text: str) -> list[int]:
    """A list of numbers, separated by commas."""
    return sorted({whole(1)(one.strip()) for one in text.split(",")})


def _share(least: float, most: float) -> Any:
    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise typer.BadParameter(f"{text!r} is not a number from {least:g} to {most:g}")
        return number

    return parse


def eval(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            help="Run folder or its URL, checkpoint, or folder of a model, such as an export.",
            parser=place,
        ),
    ],
    tasks: Annotated[
        str,
        typer.Option(
            "--tasks",
            metavar="LIST",
            help="humaneval, mbpp, humaneval+, mbpp+, files of their schemas, or NAME=FILE; needle and "
            "loss-by-position, on the run's held-out documents or on =FILE; lm-eval:TASK goes through "
            "lm-evaluation-harness. Separated by commas.",
        ),
    ],
    stage: Annotated[str | None, typer.Option("--stage", help="Stage of a run. Default: the last trained.")] = None,
    samples: Annotated[
        int, typer.Option("--samples", metavar="N", parser=whole(1), help="Completions for each task.")
    ] = 1,
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature", metavar="T", parser=_share(0, 100), help="Default: 0 (greedy), or 0.8 for several samples."
        ),
    ] = None,
    top_p: Annotated[
        float,
        typer.Option("--top-p", metavar="P", parser=_share(1e-6, 1), help="Probability that samples are taken from."),
    ] = 0.95,
    prompts: Annotated[
        str,
        typer.Option(
            "--prompts",
            parser=one_of("bigcode", "paper"),
            help="How to ask: as bigcode-evaluation-harness, or as the papers of HumanEval and MBPP (three examples).",
        ),
    ] = "bigcode",
    k: Annotated[
        str | None, typer.Option("--k", metavar="LIST", help="k of pass@k. Default: 1, 10 and 100, up to --samples.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", metavar="N", parser=whole(1), help="Only the first tasks of each file; so many long texts."
        ),
    ] = None,
    tokens: Annotated[
        int, typer.Option("--tokens", metavar="N", parser=whole(1), help="Most tokens of a completion.")
    ] = 512,
    seed: Annotated[int, typer.Option("--seed", metavar="N", parser=whole(0), help="Seed of the samples.")] = 0,
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="N", parser=whole(1), help="Programs run at once. Default: one per core."),
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option("--tokenizer", metavar="FILE", help="For a model that comes without one.")
    ] = None,
    length: Annotated[
        int | None,
        typer.Option(
            "--length",
            metavar="N",
            parser=whole(2),
            help="Tokens of a long text. Default: of a row in the stage's training, or what the model reads.",
        ),
    ] = None,
    needle: Annotated[
        Path | None,
        typer.Option("--needle", metavar="FILE", help="YAML with the needle and what stands around it."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Results. Default: RUN/evaluations/STAGE, or evaluations/MODEL."),
    ] = None,
    unsafe: Annotated[
        bool,
        typer.Option("--unsafe", help="Run programs even where they cannot be isolated from this user's files."),
    ] = False,
    json: Json = False,
) -> None:
    """Measure a model: code tasks, whose programs run in a sandbox, by pass@k; long texts by position.

    An interrupted evaluation resumes when the same command is run again.
    """
    from headrace import environment, evaluation, long_evaluation

    wanted = [one.strip() for one in tasks.split(",") if one.strip()]
    ks = _numbers(k) if k else [one for one in (1, 10, 100) if one <= samples]
    _check(wanted, ks, samples, temperature)
    long, wanted = long_evaluation.split(wanted)
    if (length or needle) and not long:
        raise typer.BadParameter("--length and --needle are for needle and loss-by-position")
    target = evaluation.find_target(model, stage, tokenizer)
    files = [one for one in wanted if not one.startswith(evaluation.HARNESS)]
    code = evaluation.find_tasks(files, target.run, cast("Prompts", prompts))
    other = [one.removeprefix(evaluation.HARNESS) for one in wanted if one.startswith(evaluation.HARNESS)]
    request = evaluation.Request(
        samples,
        (0.0 if samples == 1 else 0.8) if temperature is None else temperature,
        top_p,
        tuple(ks),
        limit,
        tokens,
        seed,
        workers or environment.cores(),
        unsafe,
        out or target.results,
    )
    with ExitStack() as stack:
        progress = stack.enter_context(_progress())
        results = evaluation.evaluate(target, code, other, request, progress)
        about = long_evaluation.Request(long, length, limit, seed, needle, request.out)
        results |= long_evaluation.evaluate(target, about, progress)
    if json:
        say_json(results)
    else:
        say("\n".join(render(name, told) for name, told in results.items()))


def _check(wanted: list[str], ks: list[int], samples: int, temperature: float | None) -> None:
    """Refuse options that contradict each other."""
    from headrace.errors import UserError

    if not wanted:
        raise UserError("No tasks are given.", "--tasks", "Give some, such as humaneval,mbpp.")
    if max(ks) > samples:
        raise UserError(f"pass@{max(ks)} needs that many samples.", "--k", f"Give --samples {max(ks)}, or a smaller k.")
    if temperature == 0 and samples > 1:
        raise UserError("At temperature 0 all samples are the same.", "--temperature", "Raise it, or take one sample.")


def render(name: str, told: dict[str, Any]) -> str:
    """An evaluation's summary in a line or two, or a table."""
    if "positions" in told or "cells" in told:
        return (by_position if "positions" in told else needles)(name, told)
    if "pass@k" not in told:
        return "\n".join(f"{name} {metric}: {value}" for metric, value in told["results"].items())
    scores = [
        f"pass@{k} {100 * one['value']:.1f} % (95 %: {100 * one['low']:.1f} to {100 * one['high']:.1f})"
        for k, one in told["pass@k"].items()
    ]
    statuses = ", ".join(f"{count} {status}" for status, count in told["statuses"].items())
    return f"{name}: {', '.join(scores)}\n  {told['tasks']} tasks: {statuses}\n  {told['path']}"


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar for each thing being done, on a terminal."""
    if not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress as Bars

    with Bars(console=Console(stderr=True)) as bars:
        shown: dict[str, Any] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in shown:
                shown[what] = bars.add_task(what, total=total)
            bars.update(shown[what], completed=done, total=total)

        yield tell
