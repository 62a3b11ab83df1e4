"""What `deduplicate.against` names, found once by the coordinator: finished runs, and documents in files."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from headrace import run_folder
from headrace.documents import globs
from headrace.documents.fingerprint import fingerprint
from headrace.documents.inventory import FINGERPRINTS, INVENTORY, SourceFiles, take_inventory
from headrace.documents.sources import InputFile
from headrace.errors import UserError
from headrace.flow.artifact import MANIFEST, Artifact
from headrace.flow.damage import check_files
from headrace.flow.notices import Notice
from headrace.flow.step import Step
from headrace.flow.storage import write_sealed
from headrace.named_files import NamedFiles
from headrace.recipe.schema import HELD_OUT, Recipe
from headrace.run_folder import AGAINST, RECIPE, REFERENCES, SEQUENCES, STARTS
from headrace.select.duplicates.reference import EarlierRun
from headrace.select.duplicates.signatures import shape
from headrace.select.duplicates.step import Duplicates

if TYPE_CHECKING:
    from headrace.formats.imported import Taken
    from headrace.train.outside import Outside


def take_input(recipe: Recipe, run: Path, check: bool = False) -> run_folder.Input:
    """List and fingerprint the files of a recipe's sources and references, find the runs among the references, read the
    other files that it names, and record all of it in the run folder for the workers.

    Args:
        recipe: the recipe.
        run: the run folder.
        check: read all files, including those recognized by size and change time.

    Raises:
        UserError: a file is missing or cannot be read, a glob matches nothing, an earlier run is not finished or is
            damaged, or the run would be compared with itself.
    """
    runs = find_runs(recipe, run)
    taken = take_inventory(run_folder.listed(recipe, runs), recipe.seed, Path.cwd(), run, check)
    if recipe.against:
        write_sealed(run / REFERENCES, {"runs": {str(k): asdict(earlier) for k, earlier in runs.items()}})
    found = run_folder.with_references(recipe, runs, taken)
    for k, entry in enumerate(found[1]):
        if isinstance(entry, SourceFiles):
            for file in entry.files:
                if not file.remote and _inside(Path(file.url), run):
                    raise _itself(f"{AGAINST}.{k}: {file.url}")
    files = NamedFiles.of(recipe, _digests(run, check))
    run_folder.write_files(recipe, run, files)
    positives = run_folder.with_positives(recipe, taken)
    return *found, find_sequences(recipe, run, check), files, find_starts(recipe, run, check), positives


def find_sequences(recipe: Recipe, run: Path, check: bool = False) -> dict[str, tuple[Taken, ...]]:
    """Open the sequences that stages train on, fingerprint their files, and record them in the run folder.

    Args:
        recipe: the recipe.
        run: the run folder.
        check: read all files, including those recognized by size and change time.

    Raises:
        UserError: as :func:`open_sequences`.
    """
    found = open_sequences(recipe, run, _digests(run, check))
    if found:
        told = {name: [asdict(one) for one in taken] for name, taken in found.items()}
        write_sealed(run / SEQUENCES, {"stages": told})
    return found


def find_starts(recipe: Recipe, run: Path, check: bool = False) -> dict[str, Outside]:
    """Look at the checkpoints that stages start from, and record them in the run folder.

    Args:
        recipe: the recipe.
        run: the run folder.
        check: read all files, including those recognized by size and change time.

    Raises:
        UserError: as :func:`headrace.train.outside.look`.
    """
    if not recipe.starts:
        return {}
    from headrace.train.outside import look

    found = {}
    for name, path in recipe.starts.items():
        stage = recipe.stage(name)
        place, carry = f"stages.{name}.start", stage.train.carry_optimizer
        found[name] = look(Path(path), place, stage.resume, carry, _digests(run, check))
    write_sealed(run / STARTS, {"stages": {name: asdict(one) for name, one in found.items()}})
    return found


def _digests(run: Path, check: bool) -> Callable[[Sequence[Path]], list[str]]:
    """Finds the digests of files, unless the run knows them by size and change time."""

    def digests(paths: Sequence[Path]) -> list[str]:
        files = [InputFile(str(path), path.name, "", None, path.stat().st_size) for path in paths]
        return [file.digest for file in fingerprint(files, run / FINGERPRINTS, check).files]

    return digests


def open_sequences(
    recipe: Recipe, run: Path | None, digests: Callable[[Sequence[Path]], list[str]]
) -> dict[str, tuple[Taken, ...]]:
    """Open the sequences that stages train on, and find the rows they take.

    Args:
        recipe: the recipe.
        run: the run folder, whose own sequences cannot be taken.
        digests: finds the digests of files that no manifest tells.

    Raises:
        UserError: there is no such sequence, it has no rows, or they are not as long as the stage's.
    """
    if not recipe.sequences:
        return {}
    from headrace.formats.format import Exported  # brings kernels, which plans do without
    from headrace.formats.imported import Taken

    found: dict[str, tuple[Taken, ...]] = {}
    for name, (sequence, seq_len) in recipe.sequences.items():
        place = "held_out" if name == HELD_OUT else f"stages.{name}.sequence"
        taken: list[Taken] = []
        for k, rows in enumerate(sequence):
            opened = []
            for path in (Path(globs.expand(path, Path.cwd(), f"{place}.{k}")) for path in rows.path):
                if run is not None and _inside(path, run):
                    raise UserError(
                        "A run cannot train on its own sequence.", f"{place}.{k}: {path}", "Give the run another --out."
                    )
                one = Exported.of(path.absolute(), rows.stage, seq_len, digests)
                if one.open().seq_len != seq_len:
                    raise UserError(
                        f"The rows of this sequence train on {one.open().seq_len:,} tokens, those of {place} on "
                        f"{seq_len:,}.",
                        str(path),
                        f"Set sequence_length: {one.open().seq_len} in the stage.",
                    )
                opened.append(Taken(one, 0, len(one.open()), rows.weight))
            parts = cut(opened, rows.slice)
            if not parts:
                raise UserError(
                    "There are no rows to train on.", rows.path[0], "Give a sequence, or a slice, that has some."
                )
            taken += parts
        found[name] = tuple(taken)
    return found


def cut(opened: Sequence[Taken], shares: Sequence[tuple[float, float]]) -> list[Taken]:
    """Parts of sequences that follow one another: those of rows ``int(n * low)`` to ``int(n * high)`` of all n rows, as
    the Model Zoo cuts its ``data_subset``. The first part has the weight of all.
    """
    total = sum(one.rows for one in opened)
    out: list[Taken] = []
    for low, high in shares:
        first, last, base = int(total * low), int(total * high), 0
        for one in opened:
            start, stop = max(first, base) - base, min(last, base + one.rows) - base
            if start < stop:
                weight = one.weight if not out else None
                out.append(replace(one, start=one.start + start, stop=one.start + stop, weight=weight))
            base += one.rows
    return out


def find_runs(recipe: Recipe, run: Path | None = None) -> dict[int, EarlierRun]:
    """The finished runs among ``deduplicate.against``, by index.

    Args:
        recipe: the recipe.
        run: the run folder, which cannot be compared with itself.

    Raises:
        UserError: one is not finished or is damaged, is an artifact of a run, or is this run itself.
    """
    found = {}
    for k, reference in enumerate(recipe.against):
        [first, *more] = reference.files
        where = f"{AGAINST}.{k}"
        path = Path(globs.plain(globs.expand(first.glob, Path.cwd(), where).removeprefix("file://")))
        if more or globs.is_remote(first.glob) or not path.is_dir():
            continue
        where = f"{where}: {path}"
        if run is not None and _inside(path, run):
            raise _itself(where)
        if (path / MANIFEST).is_file() and (path.parent.parent / RECIPE).is_file():
            raise UserError("This is an artifact of a run.", where, f"Name the run: {path.parent.parent}")
        if (path / RECIPE).is_file() and ((path / "artifacts").is_dir() or (path / INVENTORY).is_file()):
            found[k] = _earlier(recipe, path, where)
    return found


def _inside(path: Path, run: Path) -> bool:
    return path.resolve().is_relative_to(run.resolve())


def _itself(where: str) -> UserError:
    return UserError(
        "A run cannot be compared with itself.", where, "Name an earlier run, or give this one another --out."
    )


def _earlier(recipe: Recipe, path: Path, where: str) -> EarlierRun:
    try:
        steps = run_folder.read_graph(path).steps
        documents, verdicts = (_made(path, steps[kind], where) for kind in ("documents", "verdicts"))
    except UserError as error:
        if error.where.startswith(where):
            raise
        raise UserError(
            f"The earlier run cannot be read: {error.what}", f"{where} ({error.where})", error.fix
        ) from None
    method, theirs = recipe.documents.normalise, documents.manifest.params["normalise"]["method"]
    if method != theirs:
        text = f"{where}: its text is normalised by {theirs!r}, this recipe's by {method!r}: equal texts may differ"
        warnings.warn(text, Notice, stacklevel=2)
    near = recipe.deduplicate.near if recipe.deduplicate is not None else None
    signatures, duplicates = None, steps.get("duplicates")
    if isinstance(duplicates, Duplicates) and (near is None or duplicates.signatures.params() == shape(near)):
        step = duplicates.signatures
        if (path / "artifacts" / step.name).is_dir():
            signatures = _made(path, step, where).manifest.identity
    identities = (documents.manifest.identity, verdicts.manifest.identity)
    return EarlierRun(str(path.absolute()), *identities, signatures, tuple(documents.manifest.extra["sources"]))


def _made(path: Path, step: Step, where: str) -> Artifact:
    """A finished artifact of an earlier run, with no file missing or truncated.

    Raises:
        UserError: it is not finished, or was built by another version.
        DamagedArtifact: it is damaged.
    """
    folder = path / "artifacts" / step.name
    if not folder.is_dir():
        raise UserError(
            f"The earlier run has not made its {step.kind} yet, or another version of headrace made them.",
            where,
            f"Run its recipe again with --out {path}.",
        )
    artifact = Artifact.open(folder)
    check_files(artifact, read=False)
    return artifact
