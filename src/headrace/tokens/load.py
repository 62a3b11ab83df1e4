"""Open a tokenizer: from a run's artifact, or from a file."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import orjson

from headrace.errors import UserError
from headrace.flow.artifact import Artifact
from headrace.flow.notices import Notice
from headrace.recipe.stages import SpecialTokens, TokenizerConfig
from headrace.tokens.control import ControlTokens
from headrace.tokens.definition import fingerprint, read_tokenizer
from headrace.tokens.engine import Engine
from headrace.tokens.fidelity import canonical, require_asked, require_usable, require_valid
from headrace.tokens.special import Roles, own_ids, own_roles, special_ids, with_special
from headrace.tokens.table_engine import Decoder


def engine_from(definition: dict[str, Any], special: Mapping[str, int], threads: int = 1) -> Engine:
    """The engine for a tokenizer's definition: headrace's own if it supports it, otherwise the library's.

    Both produce the same ids. A notice says once if the slower one is used.

    Args:
        definition: a tokenizers JSON, parsed.
        special: role -> id of the special tokens, which are special whatever the definition says.
        threads: CPU threads that the library may use, for the whole process.
    """
    from headrace.tokens.covered import NotCoveredError
    from headrace.tokens.fast import FastEngine

    require_usable(definition)
    definition = _with_special(definition, special)
    try:
        return FastEngine(definition, special)
    except NotCoveredError as reason:
        _say_once(str(reason))
    from headrace.tokens.library import LibraryEngine

    return LibraryEngine(definition, special, threads)


def _with_special(definition: dict[str, Any], special: Mapping[str, int]) -> dict[str, Any]:
    """The definition with its special tokens marked as such: Qwen's and OLMo 2's include some that are not."""
    ids = set(special.values())
    added = [
        {**token, "special": True} if token["id"] in ids else token for token in definition.get("added_tokens") or []
    ]
    return {**definition, "added_tokens": added}


@cache
def _say_once(reason: str) -> None:
    text = f"The tokenizer runs on the tokenizers library, about 20 times slower than headrace's own engine: {reason}."
    warnings.warn(text, Notice, stacklevel=3)


def file_tokenizer(config: TokenizerConfig, needed: Collection[str] = ()) -> tuple[dict[str, Any], Roles]:
    """The definition of a tokenizer from a file, with the recipe's additions, and its special tokens.

    Args:
        config: the recipe's ``tokenizer`` section, which names a file.
        needed: roles that the recipe requires.

    Raises:
        UserError: the file is missing, is not a tokenizer that keeps every byte, or lacks a token.
    """
    assert config.file is not None
    definition, declared = read_tokenizer(Path(config.file))
    require_usable(definition)
    definition = with_special(definition, config.special.add)
    roles = own_roles(definition, config.special, declared, needed)
    definition = with_special(definition, roles.spelled.values())
    require_asked(definition, config.loses)
    return definition, roles


def open_file(
    path: Path | str, special: SpecialTokens | None = None, threads: int = 1, loses: Collection[str] = ()
) -> Engine:
    """Open a tokenizer file (see :func:`headrace.tokens.definition.read_definition`).

    Raises:
        UserError: it is not a tokenizer, or not one that keeps every byte.
    """
    config = TokenizerConfig(file=str(path), special=special or SpecialTokens(), loses=tuple(loses))
    definition, roles = file_tokenizer(config)
    require_valid(definition)
    return engine_from(definition, special_ids(definition, roles.spelled), threads)


def file_decoder(path: Path) -> tuple[Decoder, str]:
    """Open what turns ids of a tokenizer file into text. Any tokenizer will do whose tokens are text.

    Returns:
        it, and the tokenizer's fingerprint.

    Raises:
        UserError: it is not a tokenizer, or its tokens are not text.
    """
    definition, _ = read_tokenizer(path)
    require_usable(definition)
    definition = canonical(definition)
    return Decoder(definition, own_ids(definition)), fingerprint(definition)


def has_text(tokenizer: Artifact) -> bool:
    """Whether a run has a tokenizer, not only a number of ids."""
    return bool(tokenizer.entries)


def open_decoder(tokenizer: Artifact) -> Decoder:
    """Open what turns a run's token ids into text, without the tables that encoding needs.

    Args:
        tokenizer: a tokenizer artifact.

    Raises:
        UserError: the run has none, only a number of ids.
    """
    if not has_text(tokenizer):
        raise UserError(
            "The recipe has no tokenizer, only a number of ids.",
            "tokenizer.ids",
            "Give the tokenizer's `file` instead, or here with --tokenizer.",
        )
    tokenizer.file_path("tokenizer.json")  # checked here, if the artifact is being checked
    return _decoder(tokenizer.path, tokenizer.manifest.identity)


def run_definition(tokenizer: Artifact) -> dict[str, Any]:
    """The definition of a run's tokenizer, a tokenizers JSON, with its special tokens marked as such."""
    tokenizer.file_path("tokenizer.json")  # checked here, if the artifact is being checked
    return _with_special(*_parts(tokenizer.path))


@lru_cache(maxsize=1)
def _decoder(path: Path, identity: str) -> Decoder:
    definition, special = _parts(path)
    return Decoder(_with_special(definition, special), special)


def open_engine(tokenizer: Artifact, threads: int = 1) -> Engine:
    """Open a run's tokenizer; the one opened last is cached, along with the words it has encoded.

    Args:
        tokenizer: a tokenizer artifact.
        threads: CPU threads that encoding may use.
    """
    tokenizer.file_path("tokenizer.json")  # checked here, if the artifact is being checked
    return _opened(tokenizer.path, tokenizer.manifest.identity, threads)


@lru_cache(maxsize=1)
def _opened(path: Path, identity: str, threads: int) -> Engine:
    # Half a second for GPT-2's vocabulary: as long as encoding 50 MB, more than a task has.
    definition, special = _parts(path)
    return engine_from(definition, special, threads)


def open_control(tokenizer: Artifact) -> ControlTokens:
    """The control tokens of a run's tokenizer; those asked for last are cached."""
    tokenizer.file_path("tokenizer.json")  # checked here, if the artifact is being checked
    return _control(tokenizer.path, tokenizer.manifest.identity)


@lru_cache(maxsize=1)
def _control(path: Path, identity: str) -> ControlTokens:
    return ControlTokens(*_parts(path))


def _parts(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The definition of a run's tokenizer, and its special tokens."""
    tokenizer = Artifact.open(path)
    definition = orjson.loads(tokenizer.file_path("tokenizer.json").read_bytes())  # validated before it was written
    return canonical(definition), tokenizer.manifest.extra["special"]
