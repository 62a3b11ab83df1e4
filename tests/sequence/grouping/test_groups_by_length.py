"""Groups of files taken by length: each as a whole, by the tokens of all its files, wherever they lie."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from grouped_build import of_stage
from small_build import build, open_input, stage

from headrace.documents.store import read_columns
from headrace.errors import UserError
from headrace.sequence.grouping.step import groups_of
from headrace.sequence.store import ArrowSequence
from headrace.sequence.windows import PADDING
from headrace.tokens.store import open_shard


def files_of(sequence: ArrowSequence, step, name: str) -> dict[int, tuple[bytes, int]]:
    """Document row -> its group (or itself, alone) and tokens, of a source's training documents."""
    tokens, groups, found = open_input(sequence, step, "tokens"), open_input(sequence, step, "groups"), {}
    first = open_input(sequence, step, "documents").row_offsets
    for number in range(len(tokens.shards)):
        shard, told = open_shard(tokens, number), groups_of(read_columns(groups.shard_path(number)))
        for i in np.flatnonzero((shard.source == sequence.sources.index(name)) & (shard.split == 0)):
            row = int(shard.rows[i])
            at = row - int(first[number])
            own = told.groups[at].tobytes() if told.grouped[at] else f"alone {row}".encode()
            found[row] = own, int(shard.offsets[i + 1] - shard.offsets[i])
    return found


@pytest.mark.parametrize("limit", [None, 700])
def test_a_group_is_as_long_as_its_files_together(tmp_path: Path, limit: int | None) -> None:
    epochs = {0: 1, 600: 2} if limit else {0: 1, 600: 2, 1500: 3}
    step = of_stage(
        stage(sources={"a": {"epochs": epochs}, "b": {}}, pack={"method": "best_fit"}),
        {"a": {"within": None} if limit is None else {"within": None, "limit": limit}, "b": {}},
        per_shard=20,
    )
    sequence = build(tmp_path, step)
    files = files_of(sequence, step, "a")
    total: Counter[bytes] = Counter()
    for group, tokens in files.values():
        total[group] += tokens
    copies: dict[int, set[int]] = {}
    for row in range(len(sequence)):
        for s in sequence.segments(row):
            if s["kind"] != PADDING:
                copies.setdefault(int(s["row"]), set()).add(int(s["epoch"]))
    seen = set()
    for row, (group, tokens) in files.items():
        if not tokens:
            continue
        grouped = not group.startswith(b"alone")
        length = min(total[group], limit) if grouped and limit is not None else total[group]
        wanted = 1 if length < 600 else 2 if length < 1500 else 3
        assert copies[row] == set(range(wanted)), (row, group, length)
        seen.add((wanted, grouped))
    assert len({wanted for wanted, _ in seen}) == len(epochs)
    ledger = sequence.manifest["ledger"]["sources"]["a"]
    assert sum(part["copies"] for part in ledger["by_length"]) == ledger["copies"]
    assert sum(part["tokens_in"] for part in ledger["by_length"]) == ledger["tokens_in"]


def test_lengths_that_only_groups_have_are_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no documents of 900,000 tokens or more"):
        build(tmp_path, of_stage(stage(sources={"a": {"epochs": {"900k": 1}}}), {"a": {}}))
