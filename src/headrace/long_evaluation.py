"""``headrace eval`` on long texts: which texts, how long, and where the results go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace import evaluation
from headrace.errors import UserError
from headrace.tables import open_documents

if TYPE_CHECKING:
    from headrace.evaluate.code import Progress
    from headrace.evaluate.language import Language
    from headrace.evaluate.long_texts import LongTexts

NEEDLE, BY_POSITION = "needle", "loss-by-position"
TASKS = (NEEDLE, BY_POSITION)
DOCUMENTS, TRIALS = 64, 8  # documents that losses are means of; needles for each length and depth


@dataclass(frozen=True)
class Request:
    """What is asked.

    Attributes:
        tasks: some of :data:`TASKS`, each with the file of its texts; None: held-out documents of the run.
        length: tokens of a text; None: of a row in the stage that was trained, or what the model can read.
        limit: documents, and needles for each length and depth; None: :data:`DOCUMENTS` and :data:`TRIALS`.
        seed: of the draws.
        prompt: a file with the needle and what stands around; None: headrace's own.
        out: the folder of results.
    """

    tasks: Mapping[str, str | None]
    length: int | None
    limit: int | None
    seed: int
    prompt: Path | None
    out: Path


def split(wanted: list[str]) -> tuple[dict[str, str | None], list[str]]:
    """Those of ``--tasks`` that are :data:`TASKS`, with their files, and the others.

    Raises:
        UserError: one comes twice, or lacks its file.
    """
    found: dict[str, str | None] = {}
    others = []
    for one in wanted:
        name, given, file = one.partition("=")
        if name not in TASKS:
            others.append(one)
            continue
        if name in found:
            raise UserError(f"{name} comes twice.", "--tasks", "Give it once.")
        if given and not file:
            raise UserError(f"No file is given for {name!r}.", "--tasks", f"Write --tasks {name}=FILE.")
        found[name] = file or None
    return found, others


def evaluate(target: evaluation.Target, request: Request, progress: Progress) -> dict[str, dict[str, Any]]:
    """Evaluate a model on long texts.

    Returns:
        For each task what :func:`headrace.evaluate.positions.evaluate` or :func:`headrace.evaluate.needle.evaluate`
        returns, and its folder as ``path``.

    Raises:
        UserError: no text is long enough, the model cannot read as many tokens, or something is missing.
    """
    if not request.tasks:
        return {}
    evaluation.prepare()
    from headrace.evaluate import needle, positions

    length = request.length or target.length
    if length is None:
        raise UserError("Nothing says how long the texts are to be.", "--length", "Give their tokens: --length N.")
    prompt = needle.Prompt() if request.prompt is None else needle.read_prompt(request.prompt)
    language = target.open()
    if language.longest is not None and length > language.longest:
        raise UserError(f"The model reads at most {language.longest:,} tokens.", "--length", "Give fewer.")
    texts = cache(lambda file: _texts(target, language, file, length, request))
    results = {}
    for name, file in request.tasks.items():
        about, chosen = target.digest, texts(file)
        if name == BY_POSITION:
            told = positions.Settings(about, chosen.digest, length)
            folder = request.out / f"{name}-{told.identity}"
            found = positions.evaluate(language, chosen, told, folder, progress)
        else:
            lengths = needle.lengths_up_to(length, language, prompt)
            asked = needle.Settings(
                about, chosen.digest, prompt, lengths, min(request.limit or TRIALS, TRIALS), request.seed
            )
            folder = request.out / f"{name}-{asked.identity}"
            found = needle.evaluate(language, chosen, asked, folder, progress)
        results[name] = {**found, "path": str(folder)}
    return results


def _texts(target: evaluation.Target, language: Language, file: str | None, length: int, request: Request) -> LongTexts:
    from headrace.evaluate.long_texts import choose, texts_of_files

    texts = held_out(target.run) if file is None else texts_of_files(file, "--tasks")
    chosen = choose(texts, language, length, request.limit or DOCUMENTS, request.seed)
    if not chosen.long_enough:
        raise UserError(
            f"None of {chosen.read:,} {'held-out ' if file is None else ''}documents has {length + 1:,} tokens.",
            "--tasks" if file is None else file,
            "Lower --length, or give longer texts: --tasks loss-by-position=FILE.",
        )
    return chosen


def held_out(run: Path | None) -> Iterator[str]:
    """The documents of a run that no stage trains on: its validation split, without conversations.

    Raises:
        UserError: there is no run, or it holds nothing out.
    """
    fix = "Give texts: --tasks loss-by-position=FILE."
    if run is None:
        raise UserError("This model comes without a run whose held-out documents could be taken.", "--tasks", fix)
    found = False
    for batch in open_documents(run).batches(["text", "split", "turns"]):
        for text, split, turns in zip(*(batch.column(i).to_pylist() for i in range(3)), strict=True):
            if split == "validation" and turns is None:
                found = True
                yield text
    if not found:
        raise UserError("The run holds no documents out.", str(run), f"Give the recipe a `split`. {fix}")
