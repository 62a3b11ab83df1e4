"""Opening a sequence, whatever its format: one of headrace's own, an export, or files that somebody else wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from headrace.errors import UserError
from headrace.flow.artifact import MANIFEST, Artifact
from headrace.formats.files import Facts, FileSequence, Listed
from headrace.formats.format import ReadableFormat
from headrace.formats.order import Order, OrderedFiles
from headrace.formats.registry import SEQUENCES
from headrace.formats.sequences import TOLD
from headrace.recipe.mistakes import suggest
from headrace.sequence.reader import SequenceReader
from headrace.sequence.store import ArrowSequence


def open_files(path: Path | str, name: str | None = None, *, seq_len: int | None = None) -> SequenceReader:
    """Open a sequence.

    Args:
        path: the folder of a sequence of headrace's own or of an export, a file, or a folder of files.
        name: which of several sequences of an export.
        seq_len: L, for files that do not tell.

    Raises:
        UserError: nothing there can be read as a sequence; says what was looked for, or which file and row is wrong.
    """
    path = Path(path)
    if (path / MANIFEST).is_file():
        artifact = _artifact(path)
        if artifact is not None and artifact.manifest.kind == "sequence":
            return ArrowSequence(artifact)
        if artifact is not None and artifact.manifest.kind == "export":
            return _exported(artifact, name)
    for format in SEQUENCES.values():
        if isinstance(format, ReadableFormat) and (files := format.find(path)):
            if name is not None:
                raise UserError(
                    f"These files hold one sequence, without a name: there is no {name!r}.", str(path), "Leave it out."
                )
            return _found(path, format, files, seq_len)
    if not path.exists():
        raise UserError("There is no such file or folder.", str(path), "Give the file or folder of a sequence.")
    formats = [format for format in SEQUENCES.values() if isinstance(format, ReadableFormat)]
    readable = ", ".join(format.name for format in formats)
    lacking = [said for format in formats if (said := format.lacking(path)) is not None]
    raise UserError(
        "Nothing here can be read as a sequence.",
        str(path),
        " ".join([f"These formats are read: headrace's own, {readable}.", *lacking]),
    )


def of_length(sequence: SequenceReader, seq_len: int | None) -> SequenceReader:
    """The same, if its rows have the length that the user says, if he says one.

    Raises:
        UserError: they have another.
    """
    if seq_len not in (None, sequence.seq_len):
        raise UserError(
            f"Sequences here have {sequence.seq_len:,} tokens, not {seq_len:,}.",
            str(sequence.path),
            "Leave the length out: it is for files that are one line of tokens.",
        )
    return sequence


def sequence_names(path: Path) -> list[str]:
    """The names of the sequences of an export; empty for anything else."""
    artifact = _artifact(path) if (path / MANIFEST).is_file() else None
    if artifact is None or artifact.manifest.kind != "export":
        return []
    return [one["name"] for one in artifact.manifest.extra.get("sequences", ())]


def format_name(path: Path) -> str:
    """What the format of a sequence's files is called, as far as :func:`open_files` looks."""
    artifact = _artifact(path) if (path / MANIFEST).is_file() else None
    if artifact is not None and artifact.manifest.kind == "sequence":
        return "headrace"
    if artifact is not None and artifact.manifest.kind == "export":
        return str(artifact.manifest.extra["format"])
    readable = (format for format in SEQUENCES.values() if isinstance(format, ReadableFormat))
    return next((format.name for format in readable if format.find(path)), "")


def _artifact(path: Path) -> Artifact | None:
    """The artifact of a folder; None if its manifest.json is somebody else's."""
    import orjson

    try:
        value = orjson.loads((path / MANIFEST).read_bytes())
    except ValueError:
        return None
    return Artifact.open(path) if isinstance(value, dict) and "seal" in value else None


def _exported(artifact: Artifact, name: str | None) -> FileSequence:
    """A sequence of an export, with what its manifest knows."""
    extra = artifact.manifest.extra
    told = {one["name"]: one for one in extra.get("sequences", ())}
    if not told:
        fix = "Open one of its files, with a sequence length." if "tokens" in extra else "Open an export of a stage."
        raise UserError("This export holds documents, no sequence.", str(artifact.path), fix)
    if name is None and len(told) > 1:
        raise UserError("This export holds several sequences.", str(artifact.path), f"Name one of {', '.join(told)}.")
    one = told.get(name or next(iter(told)))
    if one is None:
        fix = suggest(name or "", list(told)) or f"It holds {', '.join(told)}."
        raise UserError(f"This export holds no sequence {name!r}.", str(artifact.path), fix)
    format = SEQUENCES.get(extra["format"])
    if not isinstance(format, ReadableFormat):
        readable = [name for name, format in SEQUENCES.items() if isinstance(format, ReadableFormat)]
        raise UserError(
            f"Sequences are not read back from {extra['format']}.",
            str(artifact.path),
            f"Read it with that format's own library, or export to one of {', '.join(readable)}.",
        )
    facts = Facts(
        one["seq_len"],
        np.dtype(one["dtype"]),
        one["sources"],
        one["vocab_size"],
        one["fingerprint"],
        {entry["name"]: entry for entry in artifact.entries},
        {"name": one["name"], **{name: one[name] for name in TOLD}},
        f"{artifact.manifest.identity} {one['name']}",
    )
    files = [
        Listed(artifact.path / part["file"], part["rows"], format.beside(artifact.path / part["file"]))
        for part in one["parts"]
    ]
    again = (open_files, (artifact.path, one["name"]))
    if "order" not in one:
        return FileSequence(artifact.path, files, format.open_file, facts, again)
    order = Order(artifact.path / one["order"], len(one["folders"]))
    return OrderedFiles(artifact.path, files, format.open_file, facts, again, order=order)


def _found(path: Path, format: ReadableFormat, files: list[Path], seq_len: int | None) -> FileSequence:
    """A sequence in files of which nothing is known but what they say themselves."""
    shapes = format.shapes(files, seq_len)
    # A file without rows, as others leave behind at the end, need not know how long rows would be.
    found = [(file, shape) for file, shape in zip(files, shapes, strict=True) if shape.rows] or [(files[0], shapes[0])]
    first, length = found[0][0], found[0][1].seq_len
    if length < 1:
        raise UserError("There are no rows here, and nothing says how long they would be.", str(path), "Name others.")
    for file, shape in found:
        if shape.seq_len != length:
            raise UserError(
                f"The sequences of this file have {shape.seq_len} tokens, those of {first.name} have {length}.",
                str(file),
                "Open files of one sequence length at a time.",
            )
    facts = Facts(length, max((shape.dtype for _, shape in found), key=lambda dtype: dtype.itemsize))
    listed = [Listed(file, shape.rows, format.beside(file)) for file, shape in found]
    return FileSequence(path, listed, format.open_file, facts, (_again, (path, seq_len)))


def _again(path: Path, seq_len: int | None) -> SequenceReader:
    return open_files(path, seq_len=seq_len)
