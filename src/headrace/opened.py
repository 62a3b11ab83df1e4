"""A run as Python opens it: its documents and sequences, and a table of its artifacts for a notebook."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from headrace import run_folder
from headrace.flow.mirror import working_folder
from headrace.sequence.reader import SequenceReader
from headrace.tables import DocumentTable, open_documents
from headrace.visible import one_line


def open_run(path: Path | str) -> OpenedRun:
    """A run, opened for reading. In a notebook it shows what is built.

    Args:
        path: the run folder, or its URL.

    Raises:
        UserError: it is not a run, or the URL cannot be opened.
    """
    return OpenedRun(working_folder(path))


class OpenedRun:
    """A run folder.

    Attributes:
        path: the folder.
        stages: the names of its stages.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stages = [stage.name for stage in run_folder.read_recipe(path).stages]

    def sequence(self, stage: str) -> SequenceReader:
        """A stage's sequence, as :func:`headrace.open_sequence`."""
        return run_folder.open_sequence(self.path, stage)

    def documents(self, *, removed: bool = False) -> DocumentTable:
        """Its documents, as :func:`headrace.open_documents`."""
        return open_documents(self.path, removed=removed)

    def status(self) -> dict[str, Any]:
        """What is done, running and missing, as ``headrace status --json``."""
        return run_folder.status(self.path)

    def __repr__(self) -> str:
        return f"OpenedRun({str(self.path)!r})"

    def _repr_html_(self) -> str:
        told = self.status()
        rows = []
        for one in told["artifacts"]:
            label = f"{one['kind']} {one['stage'] or ''}".strip()
            counts = (f"{one['rows']:,}", f"{one['bytes'] / 1e6:,.1f}") if "rows" in one else ("", "")
            cells = "".join(
                f"<td style='text-align:{side}'>{escape(one_line(text))}</td>"
                for side, text in zip(("left", "left", "right", "right"), (label, one["state"], *counts), strict=True)
            )
            rows.append(f"<tr>{cells}</tr>")
        head = f"<b>{escape(one_line(told['recipe']))}</b> {escape(one_line(str(self.path)))}"
        running = ", running" if told["running"] else ""
        titles = "<tr><th style='text-align:left'>artifact</th><th>state</th><th>rows</th><th>MB</th></tr>"
        return f"<div>{head}{running}</div><table>{titles}{''.join(rows)}</table>"
