"""The paths in a recipe: absolute, so that it means the same when read from a run's folder; or fit to be published."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

_RECIPE = "${recipe}"
# User and password; and values of a query that sign or authorize.
_SECRET = re.compile(r"(?<=://)[^/@\s]+@")
SIGNED = re.compile(r"([?&][^=&]*(?:token|sig|key|auth|secret|credential|password)[^=&]*=)[^&\s]+", re.IGNORECASE)

Kind = Literal["path", "glob", "pattern", "value"]
"""A path; a pattern of paths; one that may match anywhere; a value of the user's own."""

Change = Callable[[str, Kind], str]


def anchor(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A copy of a recipe's raw data with absolute paths.

    URLs and paths that start with a variable are kept; of patterns that match anywhere, only ``${recipe}`` is replaced.

    Args:
        data: as parsed from YAML; parts of an unexpected shape are left for validation to report.
        folder: the folder that relative paths refer to, and the value of ``${recipe}``.
    """

    def absolute(text: str, kind: Kind) -> str:
        base = str(folder) if kind == "path" else literal(str(folder))
        if kind == "value":
            return text
        return text.replace(_RECIPE, base) if kind == "pattern" else _absolute(text, base)

    return _changed(data, absolute)


def published(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A copy of a recipe's data whose paths tell nothing about this machine.

    Paths below the recipe's folder are relative to it, of others only the last name is left; URLs lose what signs them.

    Args:
        data: a recipe as JSON, with absolute paths.
        folder: the folder of the recipe.
    """

    def relative(text: str, kind: Kind) -> str:
        if "://" in text and not text.startswith("file://"):
            return SIGNED.sub(r"\1...", _SECRET.sub("", text))
        path = text.removeprefix("file://")
        if not os.path.isabs(path) or (kind == "value" and path.count("/") < 2):
            return text
        base = str(folder) if kind in ("path", "value") else literal(str(folder))
        inside = path.startswith(base.rstrip("/") + "/")
        name = path.removeprefix(base).lstrip("/") if inside else path.rstrip("/").rpartition("/")[2]
        # With a dot or slash, the name of a file is not taken for that of a preset.
        return name if inside and re.search(r"[/.]", name) else f"./{name}"

    return _changed(data, relative)


def _changed(data: dict[str, Any], change: Change) -> dict[str, Any]:
    """A copy of a recipe's data with what names files changed: ``sources.*.files`` and ``exclude``,
    ``deduplicate.against``, ``decontaminate.benchmarks.*.files``, ``quality``, ``opt_out.*``, ``tokenizer.file``,
    ``model.weights``, ``model.huggingface``, ``stages.*.sequence``, ``held_out``, the files of ``stages.*.chat`` and of
    ``synthetic.*``, and the code and parameters of functions.
    """
    data = dict(data)
    if isinstance(sources := data.get("sources"), dict):
        data["sources"] = {name: _source(source, change) for name, source in sources.items()}
    deduplicate = data.get("deduplicate")
    if isinstance(deduplicate, dict) and "against" in deduplicate:
        data["deduplicate"] = {**deduplicate, "against": _references(deduplicate["against"], change)}
    decontaminate = data.get("decontaminate")
    if isinstance(decontaminate, dict) and isinstance(benchmarks := decontaminate.get("benchmarks"), dict):
        named = {name: _files(benchmark, change) for name, benchmark in benchmarks.items()}
        data["decontaminate"] = {**decontaminate, "benchmarks": named}
    if isinstance(quality := data.get("quality"), dict):
        data["quality"] = _quality(quality, change)
    if isinstance(opt_out := data.get("opt_out"), dict):
        data["opt_out"] = {kind: _each(files, "glob", change) for kind, files in opt_out.items()}
    if isinstance(measures := data.get("measures"), dict):
        data["measures"] = {name: _function(measure, change) for name, measure in measures.items()}
    documents = data.get("documents")
    if isinstance(documents, dict) and isinstance(documents.get("map"), list):
        data["documents"] = {**documents, "map": [_function(one, change) for one in documents["map"]]}
    if isinstance(synthetic := data.get("synthetic"), dict):
        data["synthetic"] = {name: _synthetic(one, change) for name, one in synthetic.items()}
    if "held_out" in data:
        data["held_out"] = _sequence(data["held_out"], change)
    tokenizer = data.get("tokenizer")
    if isinstance(tokenizer, dict) and isinstance(tokenizer.get("file"), str):
        data["tokenizer"] = {**tokenizer, "file": change(tokenizer["file"], "path")}
    if isinstance(model := data.get("model"), dict):
        named = {key: model[key] for key in ("weights", "huggingface") if isinstance(model.get(key), str)}
        data["model"] = {**model, **{key: change(path, "path") for key, path in named.items()}}
    if isinstance(stages := data.get("stages"), list):
        data["stages"] = [_stage(stage, change) for stage in stages]
    if "defaults" in data:
        data["defaults"] = _stage(data["defaults"], change)
    return data


def _synthetic(section: Any, change: Change) -> Any:
    """A synthetic source, with the paths of its answers, of its templates' files and of its parser."""
    if not isinstance(section, dict):
        return section
    section = dict(section)
    if "answers" in section:
        section["answers"] = _each(section["answers"], "glob", change)
    for key in ("prompt", "system"):
        text = section.get(key)
        if isinstance(text, str) and text.endswith(".jinja") and "\n" not in text:
            section[key] = change(text, "path")
    if "parser" in section:
        section["parser"] = _function(section["parser"], change)
    return section


def _template(name: Any, change: Change) -> Any:
    """A file's path; a name, as of a template of headrace's own or of a stage, is kept."""
    return change(name, "path") if isinstance(name, str) and re.search(r"[/.]", name) else name


def _source(source: Any, change: Change) -> Any:
    source = _files(source, change)
    if isinstance(source, dict) and "format" in source:
        source["format"] = _function(source["format"], change)
    if isinstance(source, dict) and isinstance(source.get("files"), list | dict):
        source["files"] = _formats(source["files"], change)
    if isinstance(source, dict) and "exclude" in source:
        source["exclude"] = _each(source["exclude"], "pattern", change)
    return source


def _stage(stage: Any, change: Change) -> Any:
    """A stage, with the paths of its sequence, of its chat template and of what it starts from."""
    if not isinstance(stage, dict):
        return stage
    if isinstance(stage.get("start"), str):
        stage = {**stage, "start": _template(stage["start"], change)}
    chat = stage.get("chat")
    if isinstance(chat, str):
        stage = {**stage, "chat": _template(chat, change)}
    elif isinstance(chat, dict):
        chat = {**chat, **({"variables": _values(chat["variables"], change)} if "variables" in chat else {})}
        stage = {
            **stage,
            "chat": {**chat, **({"template": _template(chat["template"], change)} if "template" in chat else {})},
        }
    if "sequence" not in stage:
        return stage
    return {**stage, "sequence": _sequence(stage["sequence"], change)}


def _sequence(rows: Any, change: Change) -> Any:
    """A path, a mapping with one or several, or a list of these."""
    if isinstance(rows, list | tuple):
        return [_sequence(one, change) for one in rows]
    if isinstance(rows, dict) and "path" in rows:
        return {**rows, "path": _sequence(rows["path"], change)}
    return change(rows, "path") if isinstance(rows, str) else rows


def _references(against: Any, change: Change) -> Any:
    """A path, a source, or a list of these."""
    if isinstance(against, list):
        return [_references(item, change) for item in against]
    return _source({"files": against}, change) if isinstance(against, str) else _source(against, change)


def _quality(section: dict[str, Any], change: Change) -> dict[str, Any]:
    """The section with the files of benchmarks, and those that annotators are trained on."""
    section = dict(section)
    if isinstance(benchmarks := section.get("benchmarks"), dict):
        section["benchmarks"] = {name: _files(benchmark, change) for name, benchmark in benchmarks.items()}
    if isinstance(annotators := section.get("annotators"), dict):
        section["annotators"] = {name: _annotator(one, change) for name, one in annotators.items()}
    return section


def _annotator(section: Any, change: Change) -> Any:
    if not isinstance(section, dict):
        return section
    named = {key: section[key] for key in ("file", "folder", "model", "tokenizer") if isinstance(section.get(key), str)}
    section = {**section, **{key: change(path, "path") for key, path in named.items()}}
    if "positives" not in section:
        return section
    positives = section["positives"]
    if not isinstance(positives, dict):
        return {**section, "positives": _references(positives, change)}
    if "files" in positives:
        positives = {**positives, "files": _references(positives["files"], change)}
    return {**section, "positives": positives}


def _files(section: Any, change: Change) -> Any:
    if not isinstance(section, dict):
        return section
    section = dict(section)
    if "files" in section:
        section["files"] = _each(section["files"], "glob", change)
    return section


def _formats(files: Any, change: Change) -> Any:
    """Files, or a list of them, along with any readers they name."""
    if isinstance(files, list):
        return [_formats(item, change) for item in files]
    return (
        {**files, "format": _function(files["format"], change)}
        if isinstance(files, dict) and "format" in files
        else files
    )


def _function(section: Any, change: Change) -> Any:
    """A function's file, unless its code is in the recipe, and its parameters."""
    if not isinstance(section, dict):
        return section
    section = {**section, **({"with": _values(section["with"], change)} if "with" in section else {})}
    if isinstance(section.get("python"), str) and "code" not in section:
        section["python"] = change(section["python"], "path")
    return section


def _values(value: Any, change: Change) -> Any:
    """Values of the user's own, whatever their shape."""
    if isinstance(value, dict):
        return {key: _values(inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [_values(inner, change) for inner in value]
    return change(value, "value") if isinstance(value, str) else value


def _each(value: Any, kind: Kind, change: Change) -> Any:
    """Change a text, a mapping's ``glob``, or each of a list of these."""
    if isinstance(value, list):
        return [_each(item, kind, change) for item in value]
    if isinstance(value, dict) and isinstance(value.get("glob"), str):
        return {**value, "glob": change(value["glob"], kind)}
    return change(value, kind) if isinstance(value, str) else value


def literal(path: str) -> str:
    """A path as a pattern that matches only itself."""
    return re.sub(r"([*?\[{])", r"[\1]", path)


def _absolute(path: str, folder: str) -> str:
    path = os.path.expanduser(path.replace(_RECIPE, folder))
    if "://" in path or path.startswith("${") or os.path.isabs(path):
        return path
    return os.path.normpath(os.path.join(folder, path))
