"""Functions from installed packages, found through entry points."""

from __future__ import annotations

import ast
import importlib.util
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import orjson
import xxhash

from headrace.errors import UserError
from headrace.functions.modules import parse
from headrace.functions.signature import Signature, signatures, version


def find(group: str, name: str) -> EntryPoint:
    """Find an entry point.

    Raises:
        UserError: no installed package has it, or several do.
    """
    found = {(entry.value, release(entry)): entry for entry in entry_points(group=group, name=name)}
    if not found:
        known = sorted({entry.name for entry in entry_points(group=group)})
        fix = f"Installed: {', '.join(known)}." if known else "Install the package that provides it."
        raise UserError(f"No installed package provides {name!r} in {group}.", f"package: {name}", fix)
    if len(found) > 1:
        several = ", ".join(sorted(release for _, release in found))
        raise UserError(
            f"Several installed packages provide {name!r} in {group}: {several}.",
            f"package: {name}",
            "Uninstall all but one.",
        )
    return next(iter(found.values()))


def digest_of(entry: EntryPoint) -> str:
    """The hash of what identifies the code: distribution, version, module, function, and the module's ``VERSION``."""
    tree = _tree(entry)
    told = [release(entry), entry.value, None if tree is None else version(tree)]
    return xxhash.xxh3_128_hexdigest(orjson.dumps(told))


def signature_of(entry: EntryPoint) -> Signature | None:
    """The function's signature according to its source, if there is one."""
    tree = _tree(entry)
    return None if tree is None else signatures(tree).get(entry.attr)


def release(entry: EntryPoint) -> str:
    """The distribution and its version."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else ""


def _tree(entry: EntryPoint) -> ast.Module | None:
    """The syntax tree of the function's module, if it is written in Python; nothing is imported."""
    top, *rest = entry.module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        raise UserError(f"The package has no module {entry.module}.", f"package: {entry.name}", "Reinstall it.")
    below = [Path(folder).joinpath(*rest) for folder in spec.submodule_search_locations or ()]
    candidates = [file for path in below for file in (path / "__init__.py", path.with_suffix(".py"))]
    for file in candidates if rest else [Path(spec.origin or "")]:
        if file.suffix == ".py" and file.is_file():
            return parse(file.read_bytes(), str(file))
    return None
