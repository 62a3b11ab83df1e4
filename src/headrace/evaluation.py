"""``headrace eval``: what to evaluate, on which tasks, and where the results go."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import xxhash

from headrace import environment, run_folder
from headrace.errors import UserError
from headrace.flow.artifact import MANIFEST, Artifact
from headrace.flow.storage import digest_file, read_json, write_json
from headrace.recipe.mistakes import suggest

if TYPE_CHECKING:
    from headrace.evaluate.code import Progress
    from headrace.evaluate.language import Language
    from headrace.evaluate.tasks import Prompts, Task

FOLDER = "HEADRACE_BENCHMARKS"
_FILES = {
    "humaneval": ("HumanEval.jsonl.gz", "HumanEval.jsonl", "humaneval.jsonl", "humaneval.parquet"),
    "mbpp": ("mbpp.jsonl", "mbpp.jsonl.gz", "mbpp.parquet"),
    "humaneval+": ("HumanEvalPlus.jsonl.gz", "HumanEvalPlus.jsonl", "humanevalplus.parquet"),
    "mbpp+": ("MbppPlus.jsonl.gz", "MbppPlus.jsonl", "mbppplus.parquet"),
}
HARNESS = "lm-eval:"
_NAME = re.compile(r"[\w+-]{1,80}")


@dataclass(frozen=True)
class Target:
    """A model to evaluate.

    Attributes:
        name: for the folder of results.
        digest: of its weights, configuration and tokenizer.
        open: loads it.
        results: where results go unless the user says otherwise.
        run: the run it belongs to, if any.
        length: tokens of the rows that it was trained on last, or that it says it reads; None: not known.
    """

    name: str
    digest: str
    open: Callable[[], Language]
    results: Path
    run: Path | None = None
    length: int | None = None


def find_target(path: Path, stage: str | None = None, tokenizer: Path | None = None) -> Target:
    """What a path is: a run, a checkpoint or model of one, or a folder of Hugging Face's.

    Args:
        path: the folder.
        stage: for a run: the stage whose model is meant; None: the last that is trained.
        tokenizer: for a model that comes without one: its file.

    Raises:
        UserError: it is none of these, or not finished, or lacks a tokenizer.
    """
    if tokenizer is not None and not tokenizer.is_file():
        raise UserError("There is no such tokenizer.", f"--tokenizer {tokenizer}", "Give the file of one.")
    if (path / run_folder.RECIPE).is_file():
        return _of_run(path, stage, tokenizer)
    if stage is not None:
        raise UserError("Only a run has stages.", f"--stage {stage}", "Remove it, or give a run folder.")
    if (path / "state.json").is_file() and (path / "model").is_dir():
        return _of_checkpoint(path, tokenizer)
    if not (path / "config.json").is_file():
        raise UserError(
            "This is no model: neither a run, nor a checkpoint, nor a folder with a config.json.",
            str(path),
            "Give a run folder, a checkpoint's folder, or the folder of a model.",
        )
    return _of_folder(path, tokenizer)


def _of_run(run: Path, stage: str | None, tokenizer: Path | None) -> Target:
    if stage is None:
        stages = [step.stage for step in run_folder.read_graph(run).all() if step.kind == "model"]
        done = [one for one in stages if _finished(run, one)]
        if not done:
            raise UserError("No stage of this run has been trained yet.", str(run), "Train one: `headrace run`.")
        stage = done[-1]
    model = run_folder.artifact(run, "model", stage)
    text = None if tokenizer is not None else run_folder.artifact(run, "tokenizer")
    weights = [str(entry["digest"]) for entry in model.manifest.files]
    digest = _digest([*weights, _tokenizer_digest(text, tokenizer, run)])
    section = next(one for one in run_folder.read_recipe(run).stages if one.name == stage)
    return Target(
        f"{run.name}-{stage}",
        digest,
        lambda: _own(model.path, text, tokenizer, section.train.precision),
        run / "evaluations" / str(stage),
        run,
        section.sequence_length,
    )


def _finished(run: Path, stage: str | None) -> bool:
    try:
        run_folder.artifact(run, "model", stage)
    except UserError:
        return False
    return True


def _of_checkpoint(path: Path, tokenizer: Path | None) -> Target:
    from headrace.train.checkpoint import Checkpoint, flaws
    from headrace.train.trajectory import read_trajectory

    path = path.resolve()
    trajectory = read_trajectory(path.parent)
    told = read_json(path / "state.json")
    if trajectory is None or not isinstance(told, dict):
        raise UserError("This checkpoint is damaged.", str(path), "Give another.")
    wrong = flaws(Checkpoint(path, told))
    if wrong:
        raise UserError(f"This checkpoint is damaged: {wrong[0]}.", str(path), "Give another.")
    run = _run_of(path)
    text = None if run is None or tokenizer is not None else run_folder.artifact(run, "tokenizer")
    digests = [str(entry["digest"]) for entry in told["files"]]
    digest = _digest([*digests, _tokenizer_digest(text, tokenizer, path)])

    def load() -> Language:
        from headrace.evaluate.language import Own
        from headrace.model.build import build, dtype_of
        from headrace.model.config import read_any
        from headrace.model.machine import device
        from headrace.train.checkpoint import read_part
        from headrace.train.trajectory import MODEL
        from headrace.train.world import World

        _check_memory(path / MODEL)
        model = build(read_any(trajectory.model), dtype_of(trajectory.train["precision"], device()))
        read_part(path / MODEL, model.state_dict(), World())
        return Own(model.to(device()), _engine(text, tokenizer))

    results = (run / "evaluations" / path.parents[1].name if run else Path("evaluations")) / path.name
    stages = run_folder.read_recipe(run).stages if run else ()
    length = next((one.sequence_length for one in stages if one.name == path.parents[1].name), None)
    return Target(path.name, digest, load, results, run, length)


def _of_folder(path: Path, tokenizer: Path | None) -> Target:
    try:
        told: Any = read_json(path / "config.json")
    except ValueError as error:
        raise UserError(f"This is no JSON: {error}.", str(path / "config.json"), "Copy the model again.") from None
    kind = told.get("model_type") if isinstance(told, dict) else None
    _check_memory(path)
    files = sorted(file for file in path.iterdir() if file.suffix in (".safetensors", ".json", ".model", ".bin"))
    digest = _digest([f"{file.name} {digest_file(file)}" for file in files])
    results = Path("evaluations") / path.resolve().name
    # The released CrystalCoder is no architecture of transformers: its code came with it.
    if isinstance(told, dict) and kind is not None and kind != "crystalcoder":
        if tokenizer is not None:
            raise UserError(
                "A model of transformers is read with its own tokenizer.",
                f"--tokenizer {tokenizer}",
                f"Leave it out; without one in {path}, put its files there.",
            )
        exported = (path / MANIFEST).is_file()
        reads = told.get("max_position_embeddings")
        length = reads if isinstance(reads, int) else None
        return Target(path.resolve().name, digest, lambda: _hugging_face(path, exported), results, None, length)
    run = _run_of(path)
    text = None
    if tokenizer is None and (path / "tokenizer.json").is_file():
        tokenizer = path / "tokenizer.json"
    if tokenizer is None and run is not None:
        text = run_folder.artifact(run, "tokenizer")
    digest = _digest([digest, _tokenizer_digest(text, tokenizer, path)])
    return Target(path.resolve().name, digest, lambda: _own(path, text, tokenizer), results, run)


def _hugging_face(path: Path, exported: bool) -> Language:
    from headrace.evaluate.language import HuggingFace
    from headrace.model.machine import device

    return HuggingFace(path, device(), exported)


def _own(path: Path, text: Artifact | None, tokenizer: Path | None, precision: str = "fp32") -> Language:
    from headrace.evaluate.language import Own
    from headrace.model.build import dtype_of
    from headrace.model.huggingface.reading import load
    from headrace.model.machine import device

    _check_memory(path)
    model = load(path, dtype_of(precision, device()))
    return Own(model.to(device()), _engine(text, tokenizer))


def _check_memory(weights: Path) -> None:
    """Refuse a model that the machine has no room for: the kernel would end the process without a word."""
    files = [file for file in weights.iterdir() if file.suffix in (".safetensors", ".bin")]
    needed, free = sum(file.stat().st_size for file in files), environment.free_memory()
    if needed > free:
        raise UserError(
            f"The model's weights take {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB of memory are free.",
            str(weights),
            "Close other programs, or use a machine with more.",
        )


def _engine(text: Artifact | None, tokenizer: Path | None) -> Any:
    from headrace.tokens.load import open_engine, open_file

    if tokenizer is not None:
        return open_file(tokenizer)
    assert text is not None
    return open_engine(text)


def _tokenizer_digest(text: Artifact | None, tokenizer: Path | None, path: Path) -> str:
    if tokenizer is not None:
        return digest_file(tokenizer)
    if text is None or not text.entries:  # a run on sequences in other files may know ids alone
        raise UserError("This model comes without a tokenizer.", str(path), "Give its file: --tokenizer FILE.")
    return text.manifest.identity


def _run_of(path: Path) -> Path | None:
    """The run folder that a path is in."""
    parents = path.resolve().parents
    return next((one for one in parents if (one / run_folder.RECIPE).is_file() and (one / "artifacts").is_dir()), None)


def _digest(parts: Sequence[str]) -> str:
    return xxhash.xxh3_128_hexdigest(orjson.dumps(list(parts)))


def find_tasks(wanted: Sequence[str], run: Path | None, prompts: Prompts) -> list[tuple[str, list[Task]]]:
    """The tasks of ``--tasks``: names, files, or ``NAME=FILE``.

    They are asked as ``prompts`` says (:data:`headrace.evaluate.tasks.PROMPTS`).

    A name is looked for in the run's ``decontaminate.benchmarks``, the folder ``$HEADRACE_BENCHMARKS``, and
    ``./benchmarks``. Nothing is downloaded, unless a file is given as a URL.

    Raises:
        UserError: a name is unknown or not found, a name comes twice, or a file is not of a known schema.
    """
    from headrace.evaluate.tasks import read_tasks

    found: dict[str, list[Task]] = {}
    for one in wanted:
        name, given, file = one.partition("=")
        if not given:
            name, file = Path(one).name.partition(".")[0], one
            if one in _FILES:
                name, file = one, _search(one, run)
            elif "://" not in one and not Path(one).exists():
                fix = suggest(one, list(_FILES)) or f"Known are {', '.join(_FILES)} and {HARNESS}TASK."
                raise UserError(f"There are no tasks called {one!r}, and no such file.", "--tasks", fix)
        if not file:
            raise UserError(f"No file is given for {name!r}.", "--tasks", f"Write --tasks {name}=FILE.")
        if name in found or not _NAME.fullmatch(name):
            raise UserError(f"{name!r} cannot name these tasks.", "--tasks", "Give each its own: NAME=FILE.")
        found[name] = read_tasks(file, prompts)
    return list(found.items())


def _search(name: str, run: Path | None) -> str:
    """The file of tasks that are known by name."""
    section = None if run is None else run_folder.read_recipe(run).decontaminate
    if section:
        for key, benchmark in section.benchmarks.items():
            if key.lower() == name and len(benchmark.files) == 1:
                return benchmark.files[0]
    folders = [Path(os.environ[FOLDER])] if os.environ.get(FOLDER) else []
    for folder in (*folders, Path("benchmarks")):
        for file in _FILES[name]:
            if (folder / file).is_file():
                return str(folder / file)
    raise UserError(
        f"The file of {name} was not found.",
        f"looked in ${FOLDER}, ./benchmarks" + ("" if run is None else " and the recipe's decontaminate.benchmarks"),
        f"Give it: --tasks {name}=FILE. It is never downloaded by itself.",
    )


@dataclass(frozen=True)
class Request:
    """What is asked of an evaluation: the options of ``headrace eval``.

    Attributes:
        samples: completions for each task.
        temperature: 0 for the most likely tokens.
        top_p: probability of the tokens that samples are taken from.
        ks: for pass@k.
        limit: only the first tasks of each file.
        tokens: the most tokens of a completion.
        seed: of the draws.
        workers: programs run at once.
        unsafe: run programs even where they cannot be isolated.
        out: the folder of results.
    """

    samples: int
    temperature: float
    top_p: float
    ks: tuple[int, ...]
    limit: int | None
    tokens: int
    seed: int
    workers: int
    unsafe: bool
    out: Path


def prepare() -> None:
    """Make torch ready for a model.

    Raises:
        UserError: it is not installed.
    """
    if importlib.util.find_spec("torch") is None:
        raise UserError(
            "A model needs torch, which is not installed here.",
            "",
            f"{sys.executable} -m pip install 'headrace[train]'",
        )
    from headrace.model import machine

    machine.prepare()


def evaluate(
    target: Target,
    code: Sequence[tuple[str, list[Task]]],
    harness: Sequence[str],
    request: Request,
    progress: Progress,
) -> dict[str, dict[str, Any]]:
    """Evaluate a model.

    Args:
        target: the model.
        code: code tasks by name.
        harness: tasks of lm-evaluation-harness.
        request: how.
        progress: hears how far it is.

    Returns:
        For each name what :func:`headrace.evaluate.code.evaluate` returns, and its folder as ``path``; for the harness
        ``{"results": {metric: value}}``.

    Raises:
        UserError: programs cannot be isolated here, or something is missing.
    """
    prepare()
    from headrace.evaluate import code as evaluation
    from headrace.evaluate.sandbox import Limits, Sandbox

    language = cache(target.open)
    results: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:  # what may be lacking comes first
        sandbox = stack.enter_context(Sandbox(Limits(), request.unsafe)) if code else None
        if harness:
            from headrace.evaluate.harness import run_harness

            found = run_harness(language, harness, request.limit)
            request.out.mkdir(parents=True, exist_ok=True)
            write_json(request.out / "lm-eval.json", {"model": target.digest, "limit": request.limit, "results": found})
            results = {f"{HARNESS}{name}": {"results": metrics} for name, metrics in found.items()}
        for name, tasks in code:
            assert sandbox is not None
            some = tasks[: request.limit]
            settings = evaluation.Settings(
                target.digest,
                evaluation.digest(some),
                request.samples,
                request.temperature,
                request.top_p,
                request.tokens,
                request.seed,
                sandbox.limits,
            )
            folder = request.out / f"{name}-{settings.identity}"
            told = evaluation.evaluate(language, some, settings, folder, sandbox, request.ks, request.workers, progress)
            results[name] = {**told, "path": str(folder)}
    return results
