"""``headrace export``: sequences, documents and models in other people's formats."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.options import Json, Memory, SequenceLength, TokenizerFile, Workers, parse_size, place, whole
from headrace.cli.terminal import say, say_json


def export(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="PATH", help="Run folder, export, files in a format that is read, or a URL.", parser=place
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to create.")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="FORMAT",
            help="Format: hdf5, hdf5-vsl, hub, arrow, megatron, olmo-core, nanotron, mds, litdata, litdata-tokens, "
            "webdataset, array_record or packed-jsonl; of documents: jsonl.zst, jsonl.gz, parquet, slimpajama or "
            "megatron; of a model: huggingface.",
        ),
    ],
    stage: Annotated[
        list[str] | None, typer.Option("--stage", help="Stage, or heldout; repeatable. Default: all stages.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", metavar="STAGE", help="The model after this stage.")] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="The model's weights: float32 or bfloat16. Default: float32.")
    ] = None,
    documents: Annotated[bool, typer.Option("--documents", help="Documents: those that are kept.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="All stages, the held-out sequence and, where they fit, the documents.")
    ] = False,
    split: Annotated[
        list[str] | None, typer.Option("--split", help="Documents of this split; repeatable. Default: all.")
    ] = None,
    source: Annotated[
        list[str] | None, typer.Option("--source", help="Documents of this source; repeatable. Default: all.")
    ] = None,
    removed: Annotated[bool, typer.Option("--removed", help="Also removed documents, with the reason.")] = False,
    rows_per_file: Annotated[
        int | None, typer.Option("--rows-per-file", metavar="N", parser=whole(1), help="Rows in each file.")
    ] = None,
    bytes_per_file: Annotated[
        int | None,
        typer.Option(
            "--bytes-per-file", metavar="SIZE", parser=parse_size, help="Text in each file of documents, such as 200MB."
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            "--layout",
            metavar="FILE",
            help="A folder for each source: `sources`, or a YAML file (stage: {source: folder}). For hdf5.",
        ),
    ] = None,
    workers: Workers = None,
    memory: Memory = None,
    sequence_length: SequenceLength = None,
    tokenizer: TokenizerFile = None,
    json: Json = False,
) -> None:
    """Write a run's sequences, documents or model, or a sequence in other files, in a format that others read.

    An interrupted export resumes when the same command is run again.
    """
    from headrace import export as exports
    from headrace.cli.progress import listener
    from headrace.formats.options import Options

    with listener(sys.stderr if json else sys.stdout) as progress:
        wanted = exports.Wanted(
            stage or (),
            documents,
            everything,
            split or (),
            source or (),
            removed,
            sequence_length,
            tokenizer,
            model,
            dtype,
            layout,
        )
        options = Options(rows_per_file, bytes_per_file)
        folder = exports.export(run, out, to, wanted, options, workers, memory, progress)
    _tell(folder, json)


def _tell(folder: Path, json: bool) -> None:
    """Print what an export holds."""
    from headrace.flow.artifact import Artifact
    from headrace.report.numbers import counted, size

    made = Artifact.open(folder)
    extra = made.manifest.extra
    if json:
        say_json({"path": str(folder), "bytes": made.bytes, "format": extra["format"], "counts": made.manifest.counts})
        return
    for name, counts in made.manifest.counts.items():
        if "parameters" in counts:
            say(f"{name}: {extra['architecture']}, {counts['parameters']:,} parameters")
        elif "rows" in counts:
            say(f"{name}: {counted(counts['rows'], 'row')}, {counts['tokens']:,} tokens")
        else:
            amount = f"{counts['tokens']:,} tokens" if "tokens" in counts else size(counts["bytes"])
            say(f"{name}: {counted(counts['documents'], 'document')}, {amount}")
    say(f"{folder}: {counted(len(made.entries), 'file')}, {size(made.bytes)}")
