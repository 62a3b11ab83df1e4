"""Read a recipe file, merge it over what it extends, apply overrides and validate it; and write a recipe out again."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import xxhash
import yaml

from headrace.errors import UserError
from headrace.recipe import paths
from headrace.recipe.base import suggest
from headrace.recipe.bounded_yaml import DEEPEST, lines, parse, read_text
from headrace.recipe.mistakes import Origin, explain
from headrace.recipe.overlay import merge, put_all
from headrace.recipe.schema import Recipe, ValidationError


def load_recipe(source: str | Path | dict[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """Read and validate a recipe.

    Relative paths in a file are relative to that file's folder, those in overrides and dicts to the working folder.
    Both are absolute in the returned recipe, as is ``${recipe}``. Other ``${...}`` are kept as written.

    Args:
        source: path of a YAML file, or the recipe as a dict.
        overrides: ``"a.b.c=value"``, with the value in YAML. A part may be a list index or, in a list of named
            sections, a name: ``stages.stage2.sources.python.epochs=3``.

    Raises:
        UserError: the file is missing or unreadable, the YAML is invalid, or a key or value is.
    """
    origins: list[Origin] = []
    data = _in_code(source, origins) if isinstance(source, dict) else _read(Path(source), origins, ())
    data = put_all(data, {f"--set {override}": parse_override(override) for override in overrides}, Recipe)
    data = paths.anchor(data, Path.cwd())
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise explain(error, data, origins, overrides) from None
    return recipe if isinstance(source, dict) else in_folder(recipe, Path(source).resolve().parent)


def in_folder(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe as one whose file lies in a folder: its paths are absolute and stay as they are."""
    recipe = recipe.model_copy()
    recipe._folder = folder
    return recipe


def from_code(sections: dict[str, Any], make: Callable[..., None]) -> None:
    """Call ``make`` with a recipe's sections, prepared as :func:`load_recipe` prepares a dict.

    Raises:
        UserError: as :func:`load_recipe`.
    """
    origins: list[Origin] = []
    data = _in_code(sections, origins)
    try:
        make(**data)
    except ValidationError as error:
        raise explain(error, data, origins, ()) from None


def _in_code(sections: dict[str, Any], origins: list[Origin]) -> dict[str, Any]:
    """A recipe given as a dict, merged over everything it extends."""
    return _extend(paths.anchor(sections, Path.cwd()), Path.cwd(), origins, ())


def with_filters(recipe: Recipe, functions: Sequence[Callable[..., Any]]) -> Recipe:
    """Add filters given as functions that return whether to keep a document: each becomes a measure and a rule of its
    name.

    Raises:
        UserError: as for :func:`load_recipe`, in particular if a name is taken.
    """
    data = recipe.model_dump(mode="json", exclude_unset=True, by_alias=True)
    measures, rules = dict(data.get("measures", {})), list(data.get("filters", {}).get("rules", []))
    for function in functions:
        name = getattr(function, "__name__", "")
        if name in measures:
            raise UserError(f"There is already a measure {name!r}.", f"measures.{name}", "Rename the function.")
        measures[name] = {"python": function, "type": "bool"}
        rules.append({"keep": name, "name": name})
    filters = {**data.get("filters", {}), "rules": rules}
    return in_folder(load_recipe({**data, "measures": measures, "filters": filters}), recipe.folder)


def without_sources(recipe: Recipe, names: Collection[str]) -> Recipe:
    """The recipe without some synthetic sources, without the stages that sample them, and without those that start from
    such a stage."""
    gone = set[str]()
    for stage in recipe.stages:
        if not set(names).isdisjoint(stage.sources) or recipe.begins_from(stage) in gone:
            gone.add(stage.name)
    data = recipe.model_dump(mode="json", exclude_unset=True, by_alias=True)
    for section in ("sources", "synthetic"):
        data[section] = {name: value for name, value in data[section].items() if name not in names}
    data["stages"] = [stage for stage in data["stages"] if stage["name"] not in gone]
    filters = data.get("filters") or {}
    named = [(data.get("deduplicate"), "priority"), *((filters.get(kind), "sources") for kind in ("short", "code"))]
    for part, key in [*named, *((change, "sources") for change in data.get("documents", {}).get("map", []))]:
        listed = (part or {}).get(key)
        if isinstance(listed, dict):
            part[key] = {name: value for name, value in listed.items() if name not in names}
        elif listed:
            part[key] = [name for name in listed if name not in names]
    return in_folder(Recipe.model_validate(data), recipe.folder)


def dump(recipe: Recipe) -> str:
    """The recipe as YAML that reads back equal: the keys that were set, with nothing left to extend or override.

    Keys that were not set keep their defaults on reading, because setting a key can mean more than its value: a key of
    ``model`` replaces the preset's.
    """
    data = recipe.model_dump(mode="json", exclude_unset=True, by_alias=True)
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Dumper(yaml.SafeDumper):
    """Writes multi-line text, such as code, as a block."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def published(recipe: Recipe) -> Recipe:
    """The recipe for other people to read: see :func:`headrace.recipe.paths.published`."""
    data = recipe.model_dump(mode="json", exclude_unset=True, by_alias=True)
    return Recipe.model_validate(paths.published(data, recipe.folder))


_FOLDER = "# The recipe's folder: "
_SEAL = "# Written by the run; read back only as it was written. Seal: "


def sealed(recipe: Recipe) -> bytes:
    """:func:`dump` as a run stores it, ending in comments: the recipe's folder, and the XXH3-128 of what is before."""
    text = f"{dump(recipe)}{_FOLDER}{json.dumps(str(recipe.folder))}\n".encode()
    return text + f"{_SEAL}{xxhash.xxh3_128_hexdigest(text)}\n".encode()


def load_sealed(path: Path) -> Recipe:
    """Read the recipe stored in a run.

    Raises:
        UserError: it is missing or has changed since it was written.
    """
    try:
        text, _, seal = path.read_bytes().rpartition(_SEAL.encode())
    except OSError as error:
        raise UserError(f"The run's recipe cannot be read: {error.strerror}.", str(path), "Run it again.") from None
    if seal != f"{xxhash.xxh3_128_hexdigest(text)}\n".encode():
        raise UserError(
            "The run's copy of the recipe has changed since it was written.",
            str(path),
            "Run your own recipe again with the same --out: that rewrites it and nothing else.",
        )
    recipe, last = load_recipe(path), text.rstrip().rpartition(b"\n")[2].decode()
    # Without the comment, in runs of earlier versions, no path is below the folder.
    return in_folder(recipe, Path(json.loads(last.removeprefix(_FOLDER))) if last.startswith(_FOLDER) else path)


def presets() -> list[str]:
    """Names that a recipe may extend."""
    folder = resources.files("headrace.recipe") / "presets"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def preset_text(name: str) -> str:
    """The YAML of a preset."""
    return (resources.files("headrace.recipe") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")


def _read(path: Path, origins: list[Origin], chain: tuple[Path, ...]) -> dict[str, Any]:
    """Read a recipe file, merged over everything it extends."""
    path = path.resolve()
    if path in chain:
        raise UserError(
            "A recipe extends itself.",
            " -> ".join(str(link) for link in (*chain, path)),
            "Remove one of these `extends`.",
        )
    text = read_text(path, "recipe", "Check the path, or create a recipe with `headrace init`.")
    try:
        data = _parse(text, str(path), origins)
    except UserError as error:
        if path.suffix in (".yaml", ".yml"):
            raise
        raise UserError(error.what, error.where, "Is it a recipe? Data files belong in one, under `sources`.") from None
    return _extend(paths.anchor(data, path.parent), path.parent, origins, (*chain, path))


def _extend(data: dict[str, Any], folder: Path, origins: list[Origin], chain: tuple[Path, ...]) -> dict[str, Any]:
    """Merge a recipe over the preset or file named by its ``extends``."""
    if "extends" not in data:
        return data
    data = dict(data)
    base = data.pop("extends")
    if not isinstance(base, str):
        raise UserError("`extends` must name a preset or a file.", "extends", f"Write one of {', '.join(presets())}.")
    if base.endswith((".yaml", ".yml")):
        return merge(_read(folder / base, origins, chain), data, Recipe)
    if base not in presets():
        fix = suggest(base, presets()) or f"The presets are {', '.join(presets())}; a file name ends in .yaml."
        raise UserError(f"There is no preset {base!r}.", "extends", fix)
    return merge(_extend(_parse(preset_text(base), f"preset {base}", origins), folder, origins, chain), data, Recipe)


def _parse(text: str, name: str, origins: list[Origin]) -> dict[str, Any]:
    """Parse YAML text to a dict, recording the line of each key."""
    node, data = parse(text, name)
    if not isinstance(data, dict):
        what = "The recipe is empty." if data is None else "A recipe is a mapping of keys to values."
        raise UserError(what, name, "Start with `name:` and `sources:`, or create a recipe with `headrace init`.")
    origins.append(Origin(name, dict(lines(node, (), name))))
    return data


def parse_override(override: str) -> tuple[list[str], Any]:
    """The keys and the value of ``a.b.c=value``."""
    dotted, equals, text = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise UserError(
            "An override must be KEY=VALUE.", f"--set {override}", "Write it like --set split.validation=0.02."
        )
    if len(keys) > DEEPEST:
        raise UserError(f"No key has more than {DEEPEST} parts.", f"--set {dotted[:40]}...", "Shorten the key.")
    return keys, parse(text, f"--set {override}")[1]
