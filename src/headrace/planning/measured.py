"""What a run folder already contains for a recipe: exact counts, which replace estimates."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.errors import UserError
from headrace.flow.artifact import Artifact
from headrace.flow.events import read_events
from headrace.planning.counts import SourceCounts
from headrace.planning.document_lengths import measured_lengths
from headrace.recipe.schema import Recipe


@dataclass(frozen=True)
class Measured:
    """Finished artifacts of a recipe.

    Attributes:
        artifacts: node name, such as ``tokens`` or ``sequence-stage1`` -> artifact.
        seconds: node name -> how long it took, if the event log says.
    """

    artifacts: dict[str, Artifact] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def source(self, name: str, recipe: Recipe) -> SourceCounts | None:
        """The size of a source: of its training documents once tokenized, or of everything read if there are no
        stages."""
        if recipe.stages:
            made = self.artifacts.get("tokens")
            if made is None or not (held := made.manifest.counts[name].get("train")):
                return None
            tokens = held["tokens"] + held["documents"]
            lengths = measured_lengths(made.path).get(name)
            return SourceCounts(name, "measured", None, held["documents"], held["bytes"], tokens, lengths=lengths)
        made = self.artifacts.get("documents")
        if made is None:
            return None
        counts = made.manifest.counts[name]
        return SourceCounts(name, "measured", counts["files"], counts["documents"], counts["bytes"], 0)

    def ledger(self, stage: str) -> dict[str, Any] | None:
        """The token ledger of a finished sequence."""
        made = self.artifacts.get(f"sequence-{stage}")
        return None if made is None else made.manifest.extra["ledger"]


def measured(recipe: Recipe, run: Path) -> Measured:
    """Find finished artifacts of exactly this recipe in a run folder.

    The input files must match the folder's inventory by name and size; their content is not read again.

    Args:
        recipe: the recipe.
        run: a run folder, which may not exist.
    """
    from headrace.documents.inventory import SourceFiles
    from headrace.documents.sources import list_files
    from headrace.graph import build_graph
    from headrace.references import find_runs
    from headrace.run_folder import read_input, with_withdrawn

    if not (run / "artifacts").is_dir():
        return Measured()
    try:
        sources, against, sequences, _, starts, positives = read_input(recipe, run)
        read = [*sources, *(entry for entry in against if isinstance(entry, SourceFiles))]
        read += [entry for files in positives.values() for entry in files]
        if any(tuple(list_files(s.name, s.source, recipe.seed, Path.cwd())) != s.files for s in read):
            return Measured()
        runs = find_runs(recipe, run)
        if any(entry != runs.get(k) for k, entry in enumerate(against) if not isinstance(entry, SourceFiles)):
            return Measured()
    except UserError:
        # Another recipe's run, or missing input: nothing in it applies to this plan.
        return Measured()
    times = {
        event["artifact"]: float(event["seconds"])
        for event in read_events(run)
        if event["event"] == "artifact" and event["state"] == "published"
    }
    found = Measured()
    applied = with_withdrawn(recipe, run)
    for step in build_graph(applied, sources, against, sequences, None, starts, positives).all():
        folder = run / "artifacts" / step.name
        if folder.is_dir():
            name = f"{step.kind}-{step.stage}" if step.stage else step.kind
            found.artifacts[name] = Artifact.open(folder)
            if step.name in times:
                found.seconds[name] = times[step.name]
    return found
