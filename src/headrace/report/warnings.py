"""What deserves a look before tokens are spent on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headrace.report.facts import LicenceFacts, SourceFacts, StageFacts
from headrace.report.numbers import counted, passes, percent, whole

LOST = 0.5  # a source that loses more of its documents than this was misread, or its filters are wrong for it
# Muennighoff et al., "Scaling Data-Constrained Language Models" (2023): up to four epochs are worth about as much as
# new data, and ever less after that.
EPOCHS = 4.0
UNUSED = 0.01  # the share of a stage's tokens in no row that is worth a word


@dataclass(frozen=True)
class Warned:
    """A warning.

    Attributes:
        kind: ``lost``, ``quarantined``, ``repeated``, ``unused`` or ``license``.
        said: in a sentence.
        source, stage: what it is about.
    """

    kind: str
    said: str
    source: str | None = None
    stage: str | None = None


def warnings(
    sources: Sequence[SourceFacts], stages: Sequence[StageFacts], licences: Sequence[LicenceFacts] | None
) -> list[Warned]:
    """What the figures so far warn of, in the order of the flow.

    Args:
        sources: what happened to each source's records.
        stages: what each stage holds.
        licences: of kept documents; None if they were not counted.
    """
    told: list[Warned] = []
    for s in sources:
        bad = s.quarantined + s.lost_rows
        if s.read and bad > LOST * (s.read + s.lost_rows):
            told.append(Warned("quarantined", f"{whole(bad)} of {counted(s.read, 'record')} cannot be read.", s.name))
        gone = sum(s.removed.values())
        if s.kept is not None and gone > LOST * s.documents:
            most = max(s.removed, key=lambda reason: s.removed[reason])
            said = f"{percent(gone, s.documents)} of the documents are removed, most of them as {most}."
            told.append(Warned("lost", said, s.name))
    for stage in stages:
        for taken in stage.sources:
            if taken.epochs > EPOCHS:
                said = f"Repeated more than {EPOCHS:g} times: {passes(taken.epochs, taken.slice)}."
                told.append(Warned("repeated", said, taken.name, stage.name))
        left = stage.left_over
        if left > UNUSED * (stage.tokens + left):
            said = f"{whole(left)} tokens ({percent(left, stage.tokens + left)}) are in no row."
            told.append(Warned("unused", said, stage=stage.name))
        if stage.batch and (rest := stage.rows % stage.batch) > UNUSED * stage.rows:
            said = f"{counted(rest, 'row')} of {whole(stage.rows)} fill no batch of {whole(stage.batch)}."
            told.append(Warned("unused", said, stage=stage.name))
    for s in sources if licences is not None else ():
        kept = sum(one.documents for one in licences or () if one.source == s.name)
        unknown = sum(one.documents for one in licences or () if one.source == s.name and not one.name)
        if unknown:
            said = f"No license is known for {whole(unknown)} of {counted(kept, 'kept document')}."
            told.append(Warned("license", said, s.name))
    return told
