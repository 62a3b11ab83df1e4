"""Make the paths in a recipe absolute, so that it means the same when read from a run's folder."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

_RECIPE = "${recipe}"


def anchor(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A copy of a recipe's raw data with absolute paths.

    Handles ``sources.*.files``, ``sources.*.exclude`` (only the variable: its patterns match anywhere),
    ``decontaminate.benchmarks.*.files``, ``opt_out.*``, ``stages.*.sequence``, the files of ``stages.*.chat``,
    ``held_out``, ``tokenizer.file``, the ``python`` of functions, and ``deduplicate.against`` like sources. URLs and
    paths that start with a variable are kept.

    Args:
        data: as parsed from YAML; parts of an unexpected shape are left for validation to report.
        folder: the folder that relative paths refer to, and the value of ``${recipe}``.
    """
    data = dict(data)
    if isinstance(sources := data.get("sources"), dict):
        data["sources"] = {name: _source(source, folder) for name, source in sources.items()}
    deduplicate = data.get("deduplicate")
    if isinstance(deduplicate, dict) and "against" in deduplicate:
        data["deduplicate"] = {**deduplicate, "against": _references(deduplicate["against"], folder)}
    decontaminate = data.get("decontaminate")
    if isinstance(decontaminate, dict) and isinstance(benchmarks := decontaminate.get("benchmarks"), dict):
        named = {name: _files(benchmark, folder) for name, benchmark in benchmarks.items()}
        data["decontaminate"] = {**decontaminate, "benchmarks": named}
    opt_out = data.get("opt_out")
    if isinstance(opt_out, dict):
        text = literal(str(folder))
        data["opt_out"] = {k: _each(files, lambda name: _absolute(name, text)) for k, files in opt_out.items()}
    if isinstance(measures := data.get("measures"), dict):
        data["measures"] = {name: _function(measure, folder) for name, measure in measures.items()}
    documents = data.get("documents")
    if isinstance(documents, dict) and isinstance(documents.get("map"), list):
        data["documents"] = {**documents, "map": [_function(change, folder) for change in documents["map"]]}
    if "held_out" in data:
        data["held_out"] = _sequence(data["held_out"], folder)
    tokenizer = data.get("tokenizer")
    if isinstance(tokenizer, dict) and isinstance(tokenizer.get("file"), str):
        data["tokenizer"] = {**tokenizer, "file": _absolute(tokenizer["file"], str(folder))}
    if isinstance(stages := data.get("stages"), list):
        data["stages"] = [_stage(stage, folder) for stage in stages]
    if "defaults" in data:
        data["defaults"] = _stage(data["defaults"], folder)
    return data


def _template(name: Any, folder: Path) -> Any:
    """A file's path; the name of a template of headrace's own is kept."""
    return _absolute(name, str(folder)) if isinstance(name, str) and re.search(r"[/.]", name) else name


def _source(source: Any, folder: Path) -> Any:
    source = _files(source, folder)
    if isinstance(source, dict) and "format" in source:
        source["format"] = _function(source["format"], folder)
    if isinstance(source, dict) and isinstance(source.get("files"), list | dict):
        source["files"] = _formats(source["files"], folder)
    if isinstance(source, dict) and "exclude" in source:
        source["exclude"] = _each(source["exclude"], lambda text: text.replace(_RECIPE, literal(str(folder))))
    return source


def _stage(stage: Any, folder: Path) -> Any:
    """A stage, with the paths of its sequence and of its chat template."""
    if not isinstance(stage, dict):
        return stage
    chat = stage.get("chat")
    if isinstance(chat, str):
        stage = {**stage, "chat": _template(chat, folder)}
    elif isinstance(chat, dict) and "template" in chat:
        stage = {**stage, "chat": {**chat, "template": _template(chat["template"], folder)}}
    if "sequence" not in stage:
        return stage
    return {**stage, "sequence": _sequence(stage["sequence"], folder)}


def _sequence(rows: Any, folder: Path) -> Any:
    """A path, a mapping with one or several, or a list of these."""
    if isinstance(rows, list | tuple):
        return [_sequence(one, folder) for one in rows]
    if isinstance(rows, dict) and "path" in rows:
        return {**rows, "path": _sequence(rows["path"], folder)}
    return _absolute(rows, str(folder)) if isinstance(rows, str) else rows


def _references(against: Any, folder: Path) -> Any:
    """A path, a source, or a list of these."""
    if isinstance(against, list):
        return [_references(item, folder) for item in against]
    return _source({"files": against}, folder) if isinstance(against, str) else _source(against, folder)


def _files(section: Any, folder: Path) -> Any:
    if not isinstance(section, dict):
        return section
    section = dict(section)
    if "files" in section:
        section["files"] = _each(section["files"], lambda text: _absolute(text, literal(str(folder))))
    return section


def _formats(files: Any, folder: Path) -> Any:
    """Files, or a list of them, along with any readers they name."""
    if isinstance(files, list):
        return [_formats(item, folder) for item in files]
    return (
        {**files, "format": _function(files["format"], folder)}
        if isinstance(files, dict) and "format" in files
        else files
    )


def _function(section: Any, folder: Path) -> Any:
    """A function's file; a name without a file is kept."""
    if not isinstance(section, dict) or not isinstance(section.get("python"), str) or "code" in section:
        return section
    return {**section, "python": _absolute(section["python"], str(folder))}


def _each(value: Any, change: Any) -> Any:
    """Change a text, a mapping's ``glob``, or each of a list of these."""
    if isinstance(value, list):
        return [_each(item, change) for item in value]
    if isinstance(value, dict) and isinstance(value.get("glob"), str):
        return {**value, "glob": change(value["glob"])}
    return change(value) if isinstance(value, str) else value


def literal(path: str) -> str:
    """A path as a pattern that matches only itself."""
    return re.sub(r"([*?\[{])", r"[\1]", path)


def _absolute(path: str, folder: str) -> str:
    path = os.path.expanduser(path.replace(_RECIPE, folder))
    if "://" in path or path.startswith("${") or os.path.isabs(path):
        return path
    return os.path.normpath(os.path.join(folder, path))
