"""What a data card tells: the facts of the run's report, and which documents the stages are made of."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from headrace.errors import UserError
from headrace.flow.artifact import MANIFEST, Artifact
from headrace.flow.storage import digest_file
from headrace.recipe.load import load_sealed, published
from headrace.recipe.schema import Recipe
from headrace.report.attribution import Use, attribution, uses
from headrace.report.facts import RunFacts
from headrace.report.gather import declared, gather, present
from headrace.report.latest import Key
from headrace.sequence.store import open_sequence

DIGESTED = ("documents", "licences", "verdicts", "tokenizer", "tokens", "sequence")


@dataclass(frozen=True)
class CardFacts:
    """A run, or some of its stages.

    Attributes:
        run: the facts of its report, with only these stages.
        recipe: the recipe.
        uses: what the stages are made of; without stages, the documents kept.
        digests: artifact -> the digest of its manifest, which holds those of its files.
        detected: the sources whose documents were searched for licenses.
    """

    run: RunFacts
    recipe: Recipe
    uses: list[Use]
    digests: dict[str, str]
    detected: tuple[str, ...] = ()


@dataclass(frozen=True)
class Made:
    """What a card is written from, opened.

    Attributes:
        folder: the run folder.
        recipe: its recipe, as it is published.
        artifacts: the artifacts that belong together, by kind and stage.
        stages: the names of the stages that the card is about, in training order.
    """

    folder: Path
    recipe: Recipe
    artifacts: dict[Key, Artifact]
    stages: tuple[str, ...]

    def attribution(self, everything: bool = False) -> Iterator[pa.Table]:
        """The tables of :func:`headrace.report.attribution.attribution`.

        Args:
            everything: all documents that are kept, also those in none of the stages; always so without stages.
        """
        sequences = {name: open_sequence(self.artifacts["sequence", name].path) for name in self.stages}
        documents, verdicts = self.artifacts["documents", None], self.artifacts["verdicts", None]
        kept = verdicts if everything or not sequences else None
        return attribution(documents, sequences, self.artifacts.get(("licences", None)), declared(self.recipe), kept)

    def facts(self) -> CardFacts:
        """Gather everything."""
        told = gather(self.folder)
        digests = {
            artifact.path.name: digest_file(artifact.path / MANIFEST)
            for (kind, stage), artifact in self.artifacts.items()
            if kind in DIGESTED and (stage is None or stage in self.stages)
        }
        return CardFacts(
            replace(told, stages=[stage for stage in told.stages if stage.name in self.stages]),
            self.recipe,
            uses(self.attribution()),
            dict(sorted(digests.items())),
            tuple(name for name, source in self.recipe.sources.items() if source.licenses is not None),
        )


def made(run: Path | str, stages: Collection[str] | None = None) -> Made:
    """What a run has made.

    Args:
        run: the run folder.
        stages: the names of stages to speak of; by default all whose sequences are finished.

    Raises:
        UserError: the folder is no run, its documents have no verdicts yet, or a stage is missing.
    """
    run = Path(run)
    recipe = published(load_sealed(run / "recipe.yaml"))
    artifacts = present(run, recipe)
    if ("verdicts", None) not in artifacts:
        raise UserError("This run has no verdicts yet.", str(run), "Run the recipe at least --until verdicts.")
    names: Sequence[str] = [stage.name for stage in recipe.stages if ("sequence", stage.name) in artifacts]
    for name in stages or ():
        if name not in names:
            known = f"Its finished stages are {', '.join(names)}." if names else "It has no finished stages."
            raise UserError(f"This run has no sequence of a stage {name!r}.", str(run), known)
    wanted = tuple(name for name in names if stages is None or name in stages)
    return Made(run, recipe, artifacts, wanted)
