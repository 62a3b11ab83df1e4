"""The step that writes documents in a format."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from headrace.flow.step import Phase, Step
from headrace.flow.task import TaskContext
from headrace.formats.corpus import Corpus
from headrace.formats.documents import (
    TASK_MEMORY,
    DocumentFormat,
    document_configs,
    document_rows,
    documents_left,
    documents_written,
    write_readme,
)
from headrace.formats.options import Options
from headrace.formats.registry import DOCUMENTS

if TYPE_CHECKING:
    from headrace.formats.run_card import RunCard


@dataclass(frozen=True)
class DocumentExport(Step):
    """Documents written in a format.

    Attributes:
        format: its name.
        corpus: what is written.
        options: about the files.
        card: of the run that they are of, for formats with a README.md.
    """

    kind: ClassVar[str] = "export"
    VERSION: ClassVar[int] = 1
    format: str
    corpus: Corpus
    options: Options
    card: RunCard | None = None

    @property
    def _format(self) -> DocumentFormat:
        return DOCUMENTS[self.format]

    def params(self) -> dict[str, Any]:
        """The format, its version, the options, and which documents."""
        return {
            "format": self.format,
            "format_version": self._format.VERSION,
            "options": asdict(self.options),
            "documents": self.corpus.params(),
            **({} if self.card is None else {"card": self.card.identity}),
        }

    def inputs(self) -> dict[str, Step]:
        """None: the documents lie in another folder, and are part of the parameters."""
        return {}

    def check(self) -> None:
        """Refuse what the format cannot hold; see :meth:`DocumentFormat.check`."""
        self._format.check(self.corpus)

    def left_behind(self) -> str:
        """What is told to be left behind, in a sentence; empty if nothing is."""
        left = documents_left(self._format)
        return f"{self.format} holds texts but no {' or '.join(left)}: left behind." if left else ""

    def phases(self) -> list[Phase]:
        """The format's, then what stands above the files."""
        return [
            *self._format.phases(self.corpus, self.options),
            Phase("close", lambda ctx: [{}], self._close, lambda spec: TASK_MEMORY),
        ]

    def _close(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        if self._format.card():
            configs = document_configs(ctx)
            write_readme(ctx, configs, document_rows(ctx), [], {name: self._format.features(name) for name in configs})
        return {}

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """What the files hold, checked against the corpus."""
        return {
            "counts": documents_written(ctx),
            "format": self.format,
            "left_behind": documents_left(self._format),
            "made_with": self._format.made_with(),
            "documents": self.corpus.params(),
        }
