"""Read tokenizer definitions from the usual file formats, as Hugging Face tokenizers JSON."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from headrace.errors import UserError
from headrace.tokens.fidelity import canonical
from headrace.tokens.sentencepiece import definition_of_model
from headrace.tokens.vocabulary import added_tokens, parts, vocabulary

_LEFT_OUT = "it must contain tokenizer.json, tokenizer.model, or vocab.json with merges.txt"
_NAMES = ("tokenizer.json", "tokenizer.model", "vocab.json")
# Tokenizers that transformers reads from GPT-2's two files and that use GPT-2's split pattern.
_GPT2_CLASSES = {"GPT2Tokenizer", "CodeGenTokenizer", "RobertaTokenizer", "BartTokenizer", "LongformerTokenizer"}
_CONFIGS = ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "config.json")
_KEYS = {"eod": "eos_token", "bos": "bos_token", "pad": "pad_token"}


class TokenizerFile(NamedTuple):
    """The contents of a tokenizer's files.

    Attributes:
        definition: as parsed tokenizers JSON.
        declared: role (``eod``, ``bos``, ``pad``) -> the token's spelling, and the file that declares it.
    """

    definition: dict[str, Any]
    declared: dict[str, tuple[str, str]]


def read_definition(path: Path) -> dict[str, Any]:
    """A tokenizer's definition alone; see :func:`read_tokenizer`."""
    return read_tokenizer(path).definition


def read_tokenizer(path: Path) -> TokenizerFile:
    """Read a tokenizer.

    Args:
        path: a tokenizers JSON, a SentencePiece ``.model``, GPT-2's ``vocab.json`` (with ``merges.txt`` next to it,
            with the same prefix), or a folder with one of these. For files with the usual names, the files next to them
            that say which tokens start and end texts are read too.

    Raises:
        UserError: there is no such file, or it has none of these formats.
    """
    if path.is_dir():
        path = _within(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"The tokenizer cannot be read: {error.strerror}.", str(path), "Check the path.") from None
    beside = _beside(path) if path.name in _NAMES else {}
    config = beside.get("tokenizer_config.json", {})
    own: dict[str, str] = {}
    if path.suffix == ".model":
        definition, own = definition_of_model(data, str(path))
    else:
        value = _read(data, path)
        if _is_definition(value):
            definition = value
        elif value and all(isinstance(index, int) for index in value.values()):
            definition = _gpt2(value, path, config)
        else:
            raise UserError(
                "This JSON file is not a tokenizer.", str(path), "Use a tokenizer.json or GPT-2's vocab.json."
            )
    definition = _with_decoder_of(config, definition)
    declared = {role: (text, "the template of the tokenizer") for role, text in _templated(definition).items()}
    declared |= {role: (text, "the SentencePiece model") for role, text in own.items()}
    for name in reversed(_CONFIGS):
        declared |= {role: (text, name) for role, text in _named(beside.get(name, {}), definition).items()}
    return TokenizerFile(definition, declared)


def _within(folder: Path) -> Path:
    for name in _NAMES:
        if (folder / name).is_file():
            return folder / name
    raise UserError("The folder contains no tokenizer.", str(folder), f"Use another folder or a file: {_LEFT_OUT}.")


def _read(data: bytes, path: Path) -> dict[str, Any]:
    """A JSON file, checked and converted to canonical form if it is a tokenizers JSON. Whoever asks may change it."""
    value: dict[str, Any] = orjson.loads(_checked_json(data, path))
    return value


@lru_cache(maxsize=1)  # a run reads its tokenizer several times; to check one of 32,000 tokens takes 0.25 s
def _checked_json(data: bytes, path: Path) -> bytes:
    value = _json(data, path)
    return orjson.dumps(canonical(_checked(value, path)) if _is_definition(value) else value)


def _is_definition(value: dict[str, Any]) -> bool:
    return isinstance(value.get("model"), dict) and "vocab" in value["model"]


def _json(data: bytes, path: Path) -> dict[str, Any]:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise UserError(f"The tokenizer file is not JSON: {error}.", str(path), "Use a tokenizer.json.") from None
    if not isinstance(value, dict):
        raise UserError("This JSON file is not a tokenizer.", str(path), "Use a tokenizer.json.")
    return value


def _beside(path: Path) -> dict[str, dict[str, Any]]:
    """The files next to a tokenizer that say more about it, by name."""
    files = {name: path.with_name(name) for name in _CONFIGS}
    return {name: _json(file.read_bytes(), file) for name, file in files.items() if file.is_file()}


def _named(config: dict[str, Any], definition: dict[str, Any]) -> dict[str, str]:
    """Role -> spelling, as in a transformers configuration: by text or by id."""
    out = {}
    spelled: dict[int, str] = {}
    for role, key in _KEYS.items():
        token = config.get(key)
        text = token.get("content") if isinstance(token, dict) else token
        number = config.get(f"{key}_id")
        if isinstance(number, int) and text is None:
            spelled = spelled or {
                **{index: piece for piece, index in vocabulary(definition).items()},
                **{token["id"]: token["content"] for token in added_tokens(definition)},
            }
            text = spelled.get(number)
        if isinstance(text, str) and text:
            out[role] = text
    return out


def _templated(definition: dict[str, Any]) -> dict[str, str]:
    """Role -> spelling of what the template puts before and after a text."""
    try:
        processors = parts(definition, "post_processor")
        templates = [part["single"] for part in processors if part["type"] == "TemplateProcessing"]
        items = [item.get("SpecialToken", {}).get("id") for item in (templates or [[]])[0]]
    except (KeyError, TypeError, AttributeError):  # damaged, and used for nothing else
        return {}
    out = {}
    if len(items) > 1 and isinstance(items[0], str):
        out["bos"] = items[0]
    if len(items) > 1 and isinstance(items[-1], str):
        out["eod"] = items[-1]
    return out


def _with_decoder_of(config: dict[str, Any], definition: dict[str, Any]) -> dict[str, Any]:
    """The definition with special tokens that only ``tokenizer_config.json`` lists."""
    listed = config.get("added_tokens_decoder")
    known = {*vocabulary(definition), *(token["content"] for token in added_tokens(definition))}
    taken = {*vocabulary(definition).values(), *(token["id"] for token in added_tokens(definition))}
    more = [
        {**token, "id": int(index)}
        for index, token in (listed.items() if isinstance(listed, dict) else ())
        if isinstance(token, dict) and token.get("special") and isinstance(token.get("content"), str)
        if index.isdigit() and int(index) not in taken and token["content"] not in known
    ]
    return {**definition, "added_tokens": [*added_tokens(definition), *more]}


def _checked(value: dict[str, Any], path: Path) -> dict[str, Any]:
    """The definition, if its model and added tokens have the structure of tokenizers JSON."""
    vocab, merges, added = value["model"]["vocab"], value["model"].get("merges", []), value.get("added_tokens") or []
    ids: Any = vocab.values() if isinstance(vocab, dict) else ()
    if isinstance(vocab, list):
        sound = all(isinstance(item, list) and len(item) == 2 and isinstance(item[0], str) for item in vocab)
    else:
        sound = isinstance(vocab, dict)
    sound = sound and isinstance(merges, list) and isinstance(added, list) and bool(vocab)
    sound = sound and all(isinstance(merge, str) or _is_pair(merge) for merge in merges)
    sound = sound and all(isinstance(token, dict) and isinstance(token.get("content"), str) for token in added)
    ids = [*ids, *(token.get("id") for token in added)] if sound else []
    # Ids are stored in 32 bits; an id far beyond the vocabulary's size would waste memory on the gap.
    if not sound or not all(type(index) is int and 0 <= index < 2 * len(vocab) + 65_536 for index in ids):
        raise UserError(
            "The tokenizer is damaged: its vocabulary, merges or added tokens are invalid.",
            str(path),
            "Use a tokenizer.json that the tokenizers library can read.",
        )
    return {**value, "added_tokens": [{**token, "special": bool(token.get("special"))} for token in added]}


def _is_pair(merge: Any) -> bool:
    return isinstance(merge, list) and len(merge) == 2 and all(isinstance(side, str) for side in merge)


def _gpt2(vocab: dict[str, int], path: Path, config: dict[str, Any]) -> dict[str, Any]:
    merges_path = path.with_name(path.name.replace("vocab.json", "merges.txt"))
    if merges_path == path or not merges_path.is_file():
        raise UserError(
            "A vocabulary without merges is not a tokenizer.",
            str(path),
            "Name it vocab.json and put merges.txt next to it.",
        )
    kind = str(config.get("tokenizer_class", "GPT2Tokenizer"))
    if kind.removesuffix("Fast") not in _GPT2_CLASSES:
        raise UserError(
            f"vocab.json and merges.txt do not say how {kind} splits text.", str(path), "Use its tokenizer.json."
        )
    lines = merges_path.read_text(encoding="utf-8").split("\n")
    merges = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    definition = byte_level_definition(vocab, merges)
    if config.get("add_prefix_space"):
        definition["pre_tokenizer"] = {**definition["pre_tokenizer"], "add_prefix_space": True}
    return definition


def byte_level_definition(vocab: dict[str, int], merges: list[list[str]]) -> dict[str, Any]:
    """The definition of a byte-level BPE tokenizer with GPT-2's split pattern and no special tokens."""
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
    """32 hexadecimal digits that are equal for tokenizers that produce the same ids.

    Only what determines ids is hashed: added tokens, normalizer, pre-tokenizer and model, in canonical form. What
    happens after encoding (templates, decoders, padding) is not used here.
    """
    model = {key: value for key, value in definition["model"].items() if value not in (None, False, "")}
    if model.get("type") == "BPE":
        # Merges are written in two forms: "a b" and ["a", "b"].
        model["merges"] = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    added = [
        [token["id"], token["content"], bool(token.get("special")), *_found_by(token)]
        for token in definition["added_tokens"] or []
    ]
    what = [sorted(added), parts(definition, "normalizer"), parts(definition, "pre_tokenizer"), model]
    canonical = orjson.dumps(what, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(canonical, digest_size=16).hexdigest()


def _found_by(token: dict[str, Any]) -> list[str]:
    """The flags that determine where an added token matches; special ones never match in a text."""
    flags = ("lstrip", "normalized", "rstrip", "single_word")
    return [] if token.get("special") else [flag for flag in flags if token.get(flag)]
