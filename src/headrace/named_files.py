"""The small files that a recipe names, read once by the coordinator: tokenizer, templates, benchmarks, opt-out lists.

Every worker then sees what the coordinator saw, and a finished run needs none of them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from headrace.documents.sources import InputFile
from headrace.recipe.schema import Recipe
from headrace.recipe.stages import BUILT_IN
from headrace.select.contamination.benchmarks import BenchmarkFile, list_benchmarks
from headrace.select.verdicts.opt_out import ListFile, list_lists
from headrace.sequence.chat_template import ChatTemplate, chat_template
from headrace.tokens.training import file_params, needed_roles


@dataclass(frozen=True)
class NamedFiles:
    """What the files hold, as far as it determines what is built.

    Attributes:
        tokenizer: the parameters of the tokenizer in ``tokenizer.file``; None without one.
        templates: stage -> its chat template, where that is in a file.
        benchmarks: the files of ``decontaminate.benchmarks``, with fingerprints.
        opt_out: the files of ``opt_out``, with fingerprints.
    """

    tokenizer: dict[str, Any] | None = None
    templates: dict[str, ChatTemplate] = field(default_factory=dict)
    benchmarks: tuple[BenchmarkFile, ...] = ()
    opt_out: tuple[ListFile, ...] = ()

    @staticmethod
    def of(recipe: Recipe) -> NamedFiles:
        """Read the files.

        Raises:
            UserError: one is missing, unreadable, or not what the recipe takes it for.
        """
        config = recipe.tokenizer if recipe.stages else None
        chats = {stage.name: stage.chat for stage in recipe.stages if stage.chat}
        return NamedFiles(
            None if config is None or config.file is None else file_params(config, needed_roles(recipe)),
            {name: chat_template(chat) for name, chat in chats.items() if chat.template not in BUILT_IN},
            list_benchmarks(recipe.decontaminate) if recipe.decontaminate is not None else (),
            list_lists(recipe.opt_out),
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "tokenizer": self.tokenizer,
            "templates": {name: [one.source, one.tokens] for name, one in self.templates.items()},
            "benchmarks": [asdict(one) for one in self.benchmarks],
            "opt_out": [asdict(one) for one in self.opt_out],
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
        benchmarks = (
            BenchmarkFile(one["benchmark"], tuple(one["fields"]), InputFile(**one["file"]))
            for one in told["benchmarks"]
        )
        lists = (ListFile(one["kind"], InputFile(**one["file"])) for one in told["opt_out"])
        return NamedFiles(told["tokenizer"], templates, tuple(benchmarks), tuple(lists))
