"""Functions that installed packages bring, by the entry points of their distributions."""

from __future__ import annotations

import importlib.util
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import orjson
import xxhash

from headrace.errors import UserError
from headrace.functions.modules import parse
from headrace.functions.signature import Signature, signatures, version


def find(group: str, name: str) -> EntryPoint:
    """The entry point of a name.

    Raises:
        UserError: no installed package has it, or several have.
    """
    found = {(entry.value, release(entry)): entry for entry in entry_points(group=group, name=name)}
    if not found:
        known = sorted({entry.name for entry in entry_points(group=group)})
        mend = f"Those installed are {', '.join(known)}." if known else "Install the package that brings it."
        raise UserError(f"No installed package has {name!r} among its {group}.", f"package: {name}", mend)
    if len(found) > 1:
        several = ", ".join(sorted(release for _, release in found))
        raise UserError(
            f"Several installed packages have {name!r} among their {group}: {several}.",
            f"package: {name}",
            "Uninstall all but one.",
        )
    return next(iter(found.values()))


def digest_of(entry: EntryPoint) -> str:
    """The hash of what names the code: distribution and version, module and function, and the module's ``VERSION``."""
    tree = _tree(entry)
    told = [release(entry), entry.value, None if tree is None else version(tree)]
    return xxhash.xxh3_128_hexdigest(orjson.dumps(told))


def signature_of(entry: EntryPoint) -> Signature | None:
    """What the source of the function says, where there is one."""
    tree = _tree(entry)
    return None if tree is None else signatures(tree).get(entry.attr)


def release(entry: EntryPoint) -> str:
    """The distribution and its version."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else ""


def _tree(entry: EntryPoint):  # type: ignore[no-untyped-def]
    """The syntax tree of the function's module, or None; packages above it are imported, itself it is not."""
    try:
        spec = importlib.util.find_spec(entry.module)
    except Exception as error:
        raise UserError(
            f"The module {entry.module} of the package cannot be found: {error}.", f"package: {entry.name}"
        ) from None
    if spec is None:
        raise UserError(f"The package has no module {entry.module}.", f"package: {entry.name}", "Install it again.")
    path = Path(spec.origin or "")
    return parse(path.read_bytes(), str(path)) if path.suffix == ".py" and path.is_file() else None
