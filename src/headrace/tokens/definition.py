"""Reading a tokenizer's definition from the files in which tokenizers come, as Hugging Face tokenizers JSON."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import orjson

from headrace.errors import UserError
from headrace.tokens.sentencepiece import definition_of_model
from headrace.tokens.vocabulary import parts

_LEFT_OUT = "it must hold tokenizer.json, tokenizer.model, or vocab.json with merges.txt"


def read_definition(path: Path) -> dict[str, Any]:
    """Read a tokenizer.

    Args:
        path: a tokenizers JSON, a SentencePiece ``.model``, GPT-2's ``vocab.json`` (its ``merges.txt`` beside it, with
            the same prefix), or a folder that holds one of these.

    Returns:
        The definition as parsed tokenizers JSON.

    Raises:
        UserError: no such file, or not one of these formats.
    """
    if path.is_dir():
        path = _within(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"The tokenizer cannot be read: {error.strerror}.", str(path), "Mend tokenizer.file.") from None
    if path.suffix == ".model":
        return definition_of_model(data, str(path))
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise UserError(f"The tokenizer file is not JSON: {error}.", str(path), "Give a tokenizer.json.") from None
    if isinstance(value, dict) and isinstance(value.get("model"), dict) and "vocab" in value["model"]:
        return value
    if isinstance(value, dict) and value and all(isinstance(index, int) for index in value.values()):
        return _gpt2(value, path)
    raise UserError("This JSON file is not a tokenizer.", str(path), "Give a tokenizer.json or GPT-2's vocab.json.")


def _within(folder: Path) -> Path:
    for name in ("tokenizer.json", "tokenizer.model", "vocab.json"):
        if (folder / name).is_file():
            return folder / name
    raise UserError("The folder holds no tokenizer.", str(folder), f"Give another folder or a file: {_LEFT_OUT}.")


def _gpt2(vocab: dict[str, int], path: Path) -> dict[str, Any]:
    merges_path = path.with_name(path.name.replace("vocab.json", "merges.txt"))
    if merges_path == path or not merges_path.is_file():
        raise UserError(
            "A vocabulary without its merges is no tokenizer.",
            str(path),
            "Name it like vocab.json and put merges.txt beside it.",
        )
    lines = merges_path.read_text(encoding="utf-8").split("\n")
    merges = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    return byte_level_definition(vocab, merges)


def byte_level_definition(vocab: dict[str, int], merges: list[list[str]]) -> dict[str, Any]:
    """The definition of a byte-level BPE with GPT-2's split pattern and no special tokens."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
        "vocab": vocab, "merges": merges,
    }  # fmt: skip
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": level, "post_processor": None, "decoder": level, "model": model,
    }  # fmt: skip


def fingerprint(definition: dict[str, Any]) -> str:
    """32 hexadecimal digits that are equal for tokenizers that give the same ids.

    Only what determines ids is hashed: added tokens, normaliser, pre-tokeniser and model, in canonical form. What a
    tokenizer does after encoding (templates, decoders, padding) is not used here.
    """
    model = {key: value for key, value in definition["model"].items() if value not in (None, False, "")}
    if model.get("type") == "BPE":
        # Two spellings of the same merges are in use: "a b" and ["a", "b"].
        model["merges"] = [merge.split(" ") if isinstance(merge, str) else list(merge) for merge in model["merges"]]
    added = [
        [token["id"], token["content"], bool(token.get("special")), *_found_by(token)]
        for token in definition["added_tokens"] or []
    ]
    what = [sorted(added), parts(definition, "normalizer"), parts(definition, "pre_tokenizer"), model]
    canonical = json.dumps(what, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()


def _found_by(token: dict[str, Any]) -> list[str]:
    """The flags that say where an added token is found; one that is special is never found in a text."""
    flags = ("lstrip", "normalized", "rstrip", "single_word")
    return [] if token.get("special") else [flag for flag in flags if token.get(flag)]
