"""The stages: tokens by source, the ledger, and rows as the model sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headrace.recipe.lengths import lengths_range
from headrace.report.charts.split import SplitSource, SplitStage, split_chart
from headrace.report.facts import RunFacts, StageFacts
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import counted, percent, whole
from headrace.report.palette import hue
from headrace.report.samples import Piece, SampleRow
from headrace.report.tables import Column, both, details, figure, key, table, text

_GROUPS = ("files", "documents", "cut", "most_files", "most_tokens", "alone")


def token_split(facts: RunFacts) -> list[SplitStage]:
    """The stages in the form the chart takes."""
    return [
        SplitStage(
            stage.name,
            [SplitSource(s.name, s.tokens, s.epochs, s.fim, s.slice) for s in stage.sources],
        )
        for stage in facts.stages
    ]


def stages(facts: RunFacts) -> Markup | None:
    """The section, or None without stages."""
    if not facts.stages:
        return None
    names = facts.names
    drawn = both(lambda width, name: split_chart(token_split(facts), names, width, name), "split")
    parts = [
        figure("Tokens by stage and source", drawn),
        overview_table(facts.stages),
        ledger_table(facts.stages, names),
        lengths_table(facts.stages, names),
        groups_table(facts.stages, names),
    ]
    rows = [_rows(stage, names) for stage in facts.stages if stage.samples]
    if rows:
        about = "Rows as the model sees them: segments in the color of their source, special tokens in gray boxes, "
        about += "tokens without loss dimmed. "
        rows = [element("h3", "Sample rows"), element("p", about), *rows]
    return join([*parts, *rows])


def overview_table(stages: Sequence[StageFacts], named: Callable[[str], object] = str) -> Markup:
    """Rows, tokens and steps of each stage; ``named`` makes its name a link."""
    columns = [
        text("stage"),
        *map(Column, ("rows", "sequence length", "tokens", "padding", "left over", "batch", "steps in the sequence")),
    ]
    rows = [
        (
            named(stage.name),
            whole(stage.rows),
            whole(stage.sequence_length),
            whole(stage.tokens),
            whole(stage.padding),
            whole(stage.left_over),
            None if stage.batch is None else counted(stage.batch, "row"),
            None if stage.steps is None else whole(stage.steps),
        )
        for stage in stages
    ]
    caption = (
        "Tokens are the targets of all rows. Left over: tokens that do not fill a row, or exceed the stage's total."
    )
    return table(columns, rows, caption)


def ledger_table(stages: Sequence[StageFacts], names: list[str]) -> Markup:
    """The token ledger by stage and source; ``names`` are all sources, in the order of their colors."""
    columns = [
        text("stage"),
        text("source"),
        *map(
            Column,
            (
                "slice",
                "documents",
                "epochs",
                "copies",
                "tokens",
                "share",
                "with loss",
                "in FIM order",
                "PSM",
                "SPM",
            ),
        ),
    ]
    rows: list[tuple[object, ...]] = []
    groups = []
    for stage in stages:
        groups.append(len(rows))
        total = sum(s.tokens for s in stage.sources)
        for i, s in enumerate(stage.sources):
            rows.append(
                (
                    "" if i else stage.name,
                    key(s.name, names.index(s.name)),
                    f"{s.slice[0]:g}–{s.slice[1]:g}",
                    whole(s.documents),
                    f"{s.epochs:.4g}",
                    whole(s.copies),
                    whole(s.tokens),
                    percent(s.tokens, total),
                    percent(s.loss_tokens, s.tokens),
                    percent(s.fim, 1) if s.fim else None,
                    whole(s.fim_psm) if s.fim else None,
                    whole(s.fim_spm) if s.fim else None,
                )
            )
    caption = (
        "The token ledger, as counted while the rows were written. A copy is one document in one epoch; with loss "
    )
    caption += "is the share of tokens that the model is trained to predict. PSM and SPM count what was rearranged as "
    caption += "prefix, suffix, middle and as suffix, prefix, middle."
    return table(columns, rows, caption, groups=groups)


def lengths_table(stages: Sequence[StageFacts], names: list[str]) -> Markup | None:
    """What was taken of documents of each length, by stage and source; None if no stage tells them apart."""
    heads = ("tokens each", "documents", "epochs", "copies", "tokens", "share of the source")
    rows = [
        (
            stage.name,
            key(s.name, names.index(s.name)),
            lengths_range((part["lengths"][0], part["lengths"][1])),
            whole(part["documents"]),
            f"{part['epochs']:.4g}",
            whole(part["copies"]),
            whole(part["reached"]),
            percent(part["reached"], sum(other["reached"] for other in s.by_length)),
        )
        for stage in stages
        for s in stage.sources
        for part in s.by_length
    ]
    caption = "Documents taken by length, as tokenized; of files that are joined, the length is that of their group."
    return table([text("stage"), text("source"), *map(Column, heads)], rows, caption) if rows else None


def groups_table(stages: Sequence[StageFacts], names: list[str]) -> Markup | None:
    """What became of the files of repositories by stage and source; None if no stage joins them."""
    heads = ("files", "documents", "cut by a limit", "most files", "most tokens", "files that stand alone")
    rows = [
        (stage.name, key(s.name, names.index(s.name)), *(whole(s.groups[field]) for field in _GROUPS))
        for stage in stages
        for s in stage.sources
        if s.groups is not None
    ]
    caption = "Files of repositories that were joined into training documents, counting every copy."
    return table([text("stage"), text("source"), *map(Column, heads)], rows, caption) if rows else None


def _rows(stage: StageFacts, names: list[str]) -> Markup:
    return join([_row(stage, sample, names) for sample in stage.samples])


def _row(stage: StageFacts, sample: SampleRow, names: list[str]) -> Markup:
    title = f"{stage.name}, row {whole(sample.row)}: {counted(sample.segments, 'segment')}"
    pieces = [_piece(piece, names) for piece in sample.pieces]
    rest = element("p", "Truncated; `headrace replay` shows the whole row.", class_="note") if sample.cut else None
    return details(title, element("div", pieces, class_="row"), rest)


def _piece(piece: Piece, names: list[str]) -> Markup:
    if not piece.source:
        return element("div", element("header", "padding"), class_="seg")
    about = element(
        "header",
        element("b", piece.source),
        " ",
        element("span", piece.kind, class_="tag"),
        f" epoch {piece.epoch + 1} · from token {whole(piece.offset)}" + (f" · {piece.origin} · " if piece.id else ""),
        element("span", piece.id, class_="mono"),
    )
    runs = [_run(run) for run in piece.runs]
    return element("div", about, runs, class_=f"seg {hue(names.index(piece.source))}")


def _run(run: tuple[str, bool, bool]) -> Markup:
    said, loss, special = run
    classes = " ".join(name for name, on in (("special", special), ("silent", not loss)) if on)
    return element("span", said, class_=classes) if classes else join(said)
