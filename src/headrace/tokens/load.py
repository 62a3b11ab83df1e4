"""Opening a tokenizer: from the artifact of a run, or from a file."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from headrace.flow.artifact import Artifact
from headrace.flow.notices import Notice
from headrace.recipe.stages import SpecialTokens
from headrace.tokens.definition import read_definition
from headrace.tokens.engine import Engine

# CrystalChat's markers (LLM360/CrystalChat); ChatML uses the first two.
CHAT_MARKERS: Mapping[str, str] = {
    "im_start": "<|im_start|>",
    "im_end": "<|im_end|>",
    "sys_start": "<|sys_start|>",
    "sys_end": "<|sys_end|>",
}


def spellings(special: SpecialTokens) -> dict[str, str]:
    """Role -> spelling of the tokens with a duty, chat markers included; roles without a token are left out."""
    named = {
        "eod": special.eod,
        "pad": special.pad or special.eod,
        "bos": special.bos,
        "fim_prefix": special.fim_prefix,
        "fim_middle": special.fim_middle,
        "fim_suffix": special.fim_suffix,
        "fim_pad": special.fim_pad,
    }
    return {role: text for role, text in named.items() if text is not None} | dict(CHAT_MARKERS)


def special_ids(definition: dict[str, Any], special: SpecialTokens) -> dict[str, int]:
    """Role -> id of the tokens with a duty that a tokenizer has."""
    vocab = definition["model"]["vocab"]
    known = {token["content"]: token["id"] for token in definition.get("added_tokens") or []}
    known = {**(vocab if isinstance(vocab, dict) else {}), **known}
    return {role: known[text] for role, text in spellings(special).items() if text in known}


def engine_from(definition: dict[str, Any], special: Mapping[str, int], threads: int = 1) -> Engine:
    """The engine for a tokenizer's definition: the project's own where it covers it, else the library's.

    Both give the same ids. That the slower one is taken is said once, as a notice.

    Args:
        definition: a tokenizers JSON, parsed.
        special: role -> id of the tokens with a duty; these are special, whatever the definition says.
        threads: processor threads that the library may use, for the whole process.
    """
    from headrace.tokens.covered import NotCoveredError
    from headrace.tokens.fast import FastEngine

    definition = _with_special(definition, special)
    try:
        return FastEngine(definition, special)
    except NotCoveredError as reason:
        _say_once(str(reason))
    from headrace.tokens.library import LibraryEngine

    return LibraryEngine(definition, special, threads)


def _with_special(definition: dict[str, Any], special: Mapping[str, int]) -> dict[str, Any]:
    """The definition with its tokens of a duty marked as special: Qwen's and OLMo 2's name some that are not."""
    ids = set(special.values())
    added = [
        {**token, "special": True} if token["id"] in ids else token for token in definition.get("added_tokens") or []
    ]
    return {**definition, "added_tokens": added}


@cache
def _say_once(reason: str) -> None:
    text = f"The tokenizer runs on the tokenizers library, some 20 times slower than headrace's own engine: {reason}."
    warnings.warn(text, Notice, stacklevel=3)


def open_file(path: Path | str, special: SpecialTokens | None = None, threads: int = 1) -> Engine:
    """Open a tokenizer file (see :func:`headrace.tokens.definition.read_definition`).

    Raises:
        UserError: it is no tokenizer, or one that does not keep every byte.
    """
    definition = read_definition(Path(path))
    return engine_from(definition, special_ids(definition, special or SpecialTokens()), threads)


def open_engine(tokenizer: Artifact, threads: int = 1) -> Engine:
    """Open the tokenizer of a run; the one opened last is kept, with the words it knows by then.

    Args:
        tokenizer: an artifact of kind ``tokenizer``.
        threads: processor threads that encoding may use.
    """
    return _opened(tokenizer.path, tokenizer.manifest.identity, threads)


@lru_cache(maxsize=1)
def _opened(path: Path, identity: str, threads: int) -> Engine:
    # Half a second for GPT-2's vocabulary: as long as encoding 50 MB, which is more than a task has.
    tokenizer = Artifact.open(path)
    definition = read_definition(tokenizer.file_path("tokenizer.json"))
    return engine_from(definition, tokenizer.manifest.extra["special"], threads)
