"""The tokenizers that remember words, as ours does: how each is set up to give our ids, and its fastest call.

Each takes a ``list[str]`` and gives flat arrays, by the call that its documentation names for bulk work; making Python
lists of the ids would cost more than the tokenizing. What a peer refuses has no row; what it can be given in another
form, it is.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from bench.published_patterns import CL100K_PATTERN
from bench.vocabularies import ranks, with_pattern
from headrace.tokens.engine import Encoded

Encode = Callable[[list[str]], Encoded]


@dataclass(frozen=True)
class Peer:
    """A tokenizer to compare with.

    Attributes:
        fresh: given a definition, its pipeline's name, a folder and a number of cores, what makes a new tokenizer with
            nothing remembered. Raises ImportError if the package is not installed.
        call: how texts are given to it.
        refused: the pipelines that it refuses.
    """

    fresh: Callable[[dict[str, Any], str, Path, int], Callable[[], Encode]]
    call: str
    refused: frozenset[str] = frozenset()


def without_special(definition: dict[str, Any]) -> bytes:
    """A tokenizers JSON for peers that read a special token's spelling in a text as the token: they get none."""
    plain = [token for token in definition["added_tokens"] if not token["special"]]
    return orjson.dumps({**definition, "added_tokens": plain, "post_processor": None})


def _gigatoken(definition: dict[str, Any], pipeline: str, folder: Path, cores: int) -> Callable[[], Encode]:
    import gigatoken

    # Its JSON loader knows neither the spelling of GPT-4's published pattern nor that of DeepSeek-V3's in this house.
    scheme = {"cl100k pattern": "cl100k", "DeepSeek-V3": "deepseek_v3"}.get(pipeline)
    path = folder / "gigatoken.tiktoken"

    def fresh() -> Encode:
        if scheme is None:
            tokenizer = gigatoken.Tokenizer.from_json(without_special(definition))
        else:
            rows = sorted((rank, base64.b64encode(piece).decode()) for piece, rank in ranks(definition).items())
            path.write_text("".join(f"{piece} {rank}\n" for rank, piece in rows))
            tokenizer = gigatoken.Tokenizer.from_tiktoken(path, scheme, {})

        def encode(texts: list[str]) -> Encoded:
            lists = tokenizer.encode_batch(texts, parallel=cores > 1).layout
            return Encoded(np.asarray(lists.content.data), np.asarray(lists.offsets.data))

        return encode

    return fresh


def _flat(made: tuple[bytes, bytes]) -> Encoded:
    return Encoded(np.frombuffer(made[0], np.uint32), np.frombuffer(made[1], np.uint64))


def _fastokens(definition: dict[str, Any], pipeline: str, folder: Path, cores: int) -> Callable[[], Encode]:
    import fastokens

    text = orjson.dumps({**definition, "post_processor": None}).decode()

    def fresh() -> Encode:
        tokenizer = fastokens.Tokenizer.from_json_str(text)
        return lambda texts: _flat(tokenizer.encode_batch_flat(texts, split_special_tokens=True))

    return fresh


def _splintr(definition: dict[str, Any], pipeline: str, folder: Path, cores: int) -> Callable[[], Encode]:
    import splintr

    if pipeline == "cl100k pattern":  # it refuses possessive repetitions; here plain ones match the same
        definition = with_pattern(definition, CL100K_PATTERN.replace("?+", "?").replace("++", "+"))
    text = without_special(definition)

    def fresh() -> Encode:
        tokenizer = splintr.from_json_bytes(text)
        return lambda texts: _flat(tokenizer.encode_batch_flat(texts))

    return fresh


def _quicktok(definition: dict[str, Any], pipeline: str, folder: Path, cores: int) -> Callable[[], Encode]:
    import quicktok

    path = folder / "quicktok.json"
    path.write_bytes(without_special(definition))
    name = f"bench-{pipeline.split()[0]}"
    with redirect_stdout(None):
        quicktok.import_tokenizer(str(path), name, str(folder))

    def fresh() -> Encode:
        tokenizer = quicktok.Tokenizer(name, str(folder))
        return lambda texts: Encoded(*tokenizer.encode_batch(texts, cores))

    return fresh


PEERS = {
    "gigatoken": Peer(
        _gigatoken,
        "encode_batch(list[str]), to an awkward array; special tokens taken out of its definition",
        frozenset(["StarCoder"]),
    ),
    "fastokens": Peer(_fastokens, "encode_batch_flat(list[str], split_special_tokens=True)"),
    "splintr-rs": Peer(_splintr, "encode_batch_flat(list[str]); special tokens taken out of its definition"),
    "quicktok-v1": Peer(
        _quicktok,
        "encode_batch(list[str]); special tokens taken out of its definition",
        frozenset(["GPT-2", "GPT-NeoX", "StarCoder", "DeepSeek-V3", "CrystalCoder", "LLaMA"]),
    ),
}
