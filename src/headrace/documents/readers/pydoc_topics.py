"""The topics of Python's built-in help: ``pydoc_data/topics.py`` is a module with one dictionary of texts."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from headrace.documents.readers.base import Bad, Item, Part, Reader, Record, Tally, kind
from headrace.documents.readers.modules import parse
from headrace.documents.sources import InputFile
from headrace.recipe.schema import Source


class PydocTopics(Reader):
    """One document per topic. The module is parsed, never run."""

    def read(self, file: InputFile, part: Part, source: Source, tally: Tally) -> Iterator[Item]:
        """One item per topic, in dictionary order."""
        parsed = parse(file, tally)
        topics = parsed if isinstance(parsed, Bad) else _topics(parsed[0])
        if isinstance(topics, Bad):
            tally.read += 1
            yield topics
            return
        tally.read += len(topics)
        for row, (topic, text) in enumerate(topics.items()):
            if isinstance(text, str):
                yield Record(row, text, {"path": file.name, "topic": str(topic)})
            else:
                yield Bad(row, f"the topic {topic!r} holds {kind(text)}, not text")


def _topics(tree: ast.Module) -> dict[object, object] | Bad:
    for node in tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(isinstance(target, ast.Name) and target.id == "topics" for target in targets):
            try:
                value = ast.literal_eval(node.value)
            except (ValueError, TypeError) as error:
                return Bad(node.lineno - 1, f"`topics` is no plain dictionary: {error}")
            if isinstance(value, dict):
                return value
    return Bad(0, "the module assigns no dictionary to `topics`")
