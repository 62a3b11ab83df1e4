"""The small files that a recipe names, read once by the coordinator: tokenizer, templates, benchmarks, opt-out lists.

Every worker then sees what the coordinator saw, and a finished run needs none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from headrace.documents.sources import InputFile, list_files
from headrace.errors import UserError
from headrace.flow.storage import digest_file
from headrace.model.presets import read
from headrace.recipe.model import ModelSection
from headrace.recipe.quality import Quality
from headrace.recipe.schema import Recipe, Source
from headrace.recipe.stages import BUILT_IN
from headrace.select.contamination.benchmarks import BenchmarkFile, list_benchmarks
from headrace.select.quality.scorer import scorer_of
from headrace.select.verdicts.opt_out import ListFile, list_lists
from headrace.sequence.chat_template import ChatTemplate, chat_template

Digests = Callable[[Sequence[Path]], list[str]]


@dataclass(frozen=True)
class NamedFiles:
    """What the files hold, as far as it determines what is built.

    Attributes:
        tokenizer: the parameters of the tokenizer in ``tokenizer.file``; None without one.
        templates: stage -> its chat template, where that is in a file.
        benchmarks: the files of ``decontaminate.benchmarks``, with fingerprints.
        opt_out: the files of ``opt_out``, with fingerprints.
        model: of ``model.weights`` or ``model.huggingface``: ``{"folder", "config", "files"}``, with digests.
        annotators: annotator -> what its scorer found of the files that its section names.
        answers: the files of ``synthetic.*.answers``, with fingerprints.
        solutions: the files of ``quality.benchmarks``, with fingerprints.
    """

    tokenizer: dict[str, Any] | None = None
    templates: dict[str, ChatTemplate] = field(default_factory=dict)
    benchmarks: tuple[BenchmarkFile, ...] = ()
    opt_out: tuple[ListFile, ...] = ()
    model: dict[str, Any] | None = None
    annotators: dict[str, dict[str, Any]] = field(default_factory=dict)
    answers: dict[str, tuple[InputFile, ...]] = field(default_factory=dict)
    solutions: tuple[BenchmarkFile, ...] = ()

    @staticmethod
    def of(recipe: Recipe, digests: Digests | None = None) -> NamedFiles:
        """Read the files.

        Args:
            recipe: the recipe.
            digests: finds the digests of large files; reads them by default.

        Raises:
            UserError: one is missing, unreadable, or not what the recipe takes it for.
        """
        tokenizer = None
        keep = recipe.quality.keep
        counts = keep is not None and keep.tokens is not None
        if (recipe.stages or counts) and recipe.tokenizer is not None and recipe.tokenizer.file is not None:
            from headrace.tokens.training import file_params, needed_roles

            tokenizer = file_params(recipe.tokenizer, needed_roles(recipe))
        chats = {stage.name: stage.chat for stage in recipe.stages if stage.chat}
        return NamedFiles(
            tokenizer,
            {name: chat_template(chat) for name, chat in chats.items() if chat.template not in BUILT_IN},
            list_benchmarks(recipe.decontaminate) if recipe.decontaminate is not None else (),
            list_lists(recipe.opt_out),
            None if recipe.model is None else _model(recipe.model, digests or _read),
            _annotators(recipe.quality, digests or _read),
            {name: _answers(name, one.answers, digests or _read) for name, one in recipe.synthetic.items()},
            list_benchmarks(recipe.quality.solutions, "quality.benchmarks") if recipe.quality.benchmarks else (),
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "tokenizer": self.tokenizer,
            "templates": {name: [one.source, one.tokens] for name, one in self.templates.items()},
            "benchmarks": [asdict(one) for one in self.benchmarks],
            "opt_out": [asdict(one) for one in self.opt_out],
            "model": self.model,
            "annotators": self.annotators,
            "answers": {name: [asdict(file) for file in files] for name, files in self.answers.items()},
            "solutions": [asdict(one) for one in self.solutions],
        }

    @staticmethod
    def from_json(recipe: Recipe, told: dict[str, Any]) -> NamedFiles:
        """Back from JSON.

        Args:
            recipe: the recipe that names the files.
            told: from :meth:`to_json`.
        """
        chats = {stage.name: stage.chat for stage in recipe.stages if stage.chat}
        templates = {
            name: ChatTemplate(chats[name], source, tuple((key, value) for key, value in tokens))
            for name, (source, tokens) in told["templates"].items()
        }
        benchmarks, solutions = (
            tuple(
                BenchmarkFile(
                    one["benchmark"],
                    tuple(one["fields"]),
                    InputFile(**one["file"]),
                    one.get("kind"),
                    tuple(one.get("code", ())),
                )
                for one in told.get(key, ())
            )
            for key in ("benchmarks", "solutions")
        )
        lists = (ListFile(one["kind"], InputFile(**one["file"])) for one in told["opt_out"])
        answers = {name: tuple(InputFile(**file) for file in files) for name, files in told.get("answers", {}).items()}
        about = told["model"], told.get("annotators", {}), answers, solutions
        return NamedFiles(told["tokenizer"], templates, benchmarks, tuple(lists), *about)


def _answers(name: str, files: Sequence[str], digests: Digests) -> tuple[InputFile, ...]:
    """The files of recorded answers."""
    if not files:
        return ()
    where = f"synthetic.{name}.answers"
    source = Source.model_validate({"files": list(files), "format": "text"})
    try:
        listed = list_files(where, source, 0, Path.cwd())
    except UserError as error:
        raise UserError(error.what, error.where.replace(f"{where}.files", where, 1), error.fix) from None
    for file in listed:
        if file.remote or file.compression:
            raise UserError("The answers are compressed or remote.", f"{where}: {file.url}", "Use plain local files.")
    found = digests([Path(file.url) for file in listed])
    return tuple(replace(file, digest=digest) for file, digest in zip(listed, found, strict=True))


def _read(paths: Sequence[Path]) -> list[str]:
    return [digest_file(path) for path in paths]


def _annotators(section: Quality, digests: Digests) -> dict[str, dict[str, Any]]:
    """What is found of the files that annotators name.

    Raises:
        UserError: there is no such file or folder.
    """
    found = {
        name: dict(scorer_of(annotator).find(annotator, digests, f"quality.annotators.{name}"))
        for name, annotator in section.annotators.items()
    }
    return {name: one for name, one in found.items() if one}


def _model(section: ModelSection, digests: Digests) -> dict[str, Any] | None:
    """What a model's folder holds, and the digests of the files that its weights are in."""
    config = read(section)
    if config is None:
        return None
    folder = Path(section.weights or section.huggingface or "")
    from headrace.model.huggingface.reading import Stored, tensors

    held = tensors(folder, needed=False) if section.weights is None else Stored.open(folder).tensors
    there = sorted({tensor.path for tensor in held.values()})
    found = dict(zip([path.name for path in there], digests(there), strict=True))
    return {"folder": str(folder), "config": config, "files": found}
