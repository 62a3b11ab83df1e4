"""The README.md of a folder for a hub: where ``datasets`` and the hub's viewer find files, and a data card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import yaml

Configs = Mapping[str, Mapping[str, str]]
"""By the name of a config, the files of each split, as a glob below the folder."""

ABOUT = {
    "input_ids": "Rows are in training order. `input_ids` has one token more than the model's input: the first are "
    "inputs, the last are targets.",
    "loss_mask": "`loss_mask` says which tokens carry loss as a target.",
    "text": "`text` is the row decoded.",
    "segments": "`segments` says which documents its tokens come from: first position, length, kind, source, epoch, "
    "first token in the document, and the document's row, id, origin and license; what is not known is null.",
}


def readme(head: Mapping[str, Any], body: str) -> str:
    """A README.md with front matter and what comes below it."""
    return f"---\n{yaml.safe_dump(dict(head), sort_keys=False, allow_unicode=True)}---\n\n# Data\n\n{body}"


def front(configs: Configs, features: Mapping[str, pa.Schema | None]) -> dict[str, Any]:
    """The front matter that a hub reads (its "manual configuration").

    Args:
        configs: where the files are.
        features: by config, the columns, where the files do not tell.
    """
    front: dict[str, Any] = {
        "configs": [
            {"config_name": name, "data_files": [{"split": split, "path": path} for split, path in splits.items()]}
            for name, splits in configs.items()
        ]
    }
    told = [{"config_name": name, "features": _fields(known)} for name, known in features.items() if known is not None]
    if told:
        front["dataset_info"] = told
    return front


def _fields(fields: pa.Schema | pa.StructType) -> list[dict[str, Any]]:
    """Columns as ``datasets`` writes them in YAML."""
    out: list[dict[str, Any]] = []
    for field in fields:
        if pa.types.is_list(field.type):
            out.append({"name": field.name, "list": _fields(field.type.value_type)})
        else:
            out.append({"name": field.name, "dtype": str(field.type).removeprefix("large_")})
    return out


def body(configs: Configs, rows: Mapping[str, Mapping[str, int]], sequences: Sequence[Mapping[str, Any]]) -> str:
    """What people read about the files.

    Args:
        configs: as for :func:`front`.
        rows: rows by config and split.
        sequences: ``name``, ``seq_len``, ``columns``, ``vocab_size`` and ``tokenizer`` of each sequence, the last two
            None if nobody knows.
    """
    lines = ["| config | split | rows |", "|---|---|---|"]
    lines += [f"| {name} | {split} | {rows[name][split]:,} |" for name in configs for split in configs[name]]
    lines += ["", "```python", "import datasets", ""]
    lines += [f'datasets.load_dataset(PATH, "{name}", streaming=True)' for name in configs]
    lines += ["```", ""]
    if sequences:
        columns = set.union(*(one["columns"] for one in sequences))
        lines += [
            " ".join(text for name, text in ABOUT.items() if name in columns),
            "",
            "| sequence | tokens in a row | vocabulary | tokenizer |",
            "|---|---|---|---|",
        ]
        for one in sequences:
            vocabulary = "" if one["vocab_size"] is None else f"{one['vocab_size']:,}"
            tokenizer = "" if one["tokenizer"] is None else f"`{one['tokenizer']}`"
            lines.append(f"| {one['name']} | {one['seq_len'] + 1:,} | {vocabulary} | {tokenizer} |")
        lines.append("")
    lines += ["Made with headrace. `manifest.json` has the digest of every file.", ""]
    return "\n".join(lines)
