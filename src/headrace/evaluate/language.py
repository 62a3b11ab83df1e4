"""A model with its tokenizer: headrace's own, or any that transformers can load."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as fn
from torch import Tensor

from headrace.errors import UserError
from headrace.evaluate.generation import Cached, Decoding
from headrace.model.transformer import Transformer
from headrace.tokens.engine import Engine, special_id

# Logits that are in memory at a time: 64 MB in float32; but pieces of so many tokens at least.
_LOGITS, _LEAST_PIECE = 1 << 24, 64


class Language(Protocol):
    """A causal language model of text."""

    @property
    def stop(self) -> Collection[int]:
        """The ids that end a text."""
        ...

    @property
    def longest(self) -> int | None:
        """How many tokens it can read; None if there is no limit."""
        ...

    def encode(self, text: str) -> list[int]:
        """The ids of a text at the start of a document, at least one."""
        ...

    def decode(self, prompt: Sequence[int], tokens: Sequence[int]) -> str:
        """The text of ids that follow a prompt."""
        ...

    def decoding(self) -> Decoding:
        """The model, having read nothing."""
        ...

    def logits(self, tokens: Tensor) -> Tensor:
        """int64 [B, T] -> [B, T, V]."""
        ...

    def losses(self, tokens: Tensor) -> Tensor:
        """int64 [T + 1] -> float32 [T]: the loss in nats of each token after the first, given all before it, in memory
        that does not grow with T * V."""
        ...


class Own:
    """:class:`Language` of headrace's own model and tokenizer."""

    def __init__(self, model: Transformer, engine: Engine) -> None:
        self.model, self.engine = model.eval(), engine
        self.stop = frozenset(engine.special_ids.tolist())
        self.longest = model.config.learned_positions or None
        self._start = special_id(engine, "eod")  # in training, a document starts where the previous one ended

    def encode(self, text: str) -> list[int]:
        """See :class:`Language`."""
        tokens: list[int] = self.engine.encode([text]).tokens.tolist()
        return [self._start, *tokens]

    def decode(self, prompt: Sequence[int], tokens: Sequence[int]) -> str:
        """See :class:`Language`."""
        # The embedding may have more rows than the tokenizer has ids.
        known = np.array([token for token in tokens if token < self.engine.vocab_size], dtype=np.uint32)
        return self.engine.decode(known, first=False).decode("utf-8", errors="replace")

    def decoding(self) -> Decoding:
        """See :class:`Language`."""
        return Cached(self.model)

    def logits(self, tokens: Tensor) -> Tensor:
        """See :class:`Language`."""
        return self.model.logits(self.model.hidden(tokens.to(self.model.embedding.weight.device)))

    def losses(self, tokens: Tensor) -> Tensor:
        """See :class:`Language`."""
        row = tokens.to(self.model.embedding.weight.device)[None]
        _, losses = self.model(row[:, :-1], targets=row[:, 1:])
        return losses.float().cpu()


class HuggingFace:
    """:class:`Language` of a folder that transformers can load. No code that comes with it is executed.

    Args:
        path: the folder.
        device: where to run it.
        after_document: whether texts follow an end-of-text token, as headrace trains; otherwise they begin with
            whatever the tokenizer adds.

    Raises:
        UserError: transformers is not installed, or cannot load the model or its tokenizer.
    """

    def __init__(self, path: Path, device: torch.device, after_document: bool = False) -> None:
        try:
            import transformers
        except ModuleNotFoundError:
            raise UserError(
                "Models of Hugging Face need transformers, which is not installed.",
                str(path),
                "Install it: pip install 'headrace[eval]'.",
            ) from None
        transformers.utils.logging.disable_progress_bar()
        options = {"local_files_only": True, "trust_remote_code": False}
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        try:
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(path, **options)
            model: Any = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=dtype, **options)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise UserError(
                f"transformers cannot load this model: {str(error).strip().splitlines()[0]}", str(path), "Name another."
            ) from None
        self.model = model.to(device).eval()
        self._after_document = after_document and self._tokenizer.eos_token_id is not None
        ends = self.model.generation_config.eos_token_id
        known = {self._tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
        self.stop = frozenset(known - {None})
        self.longest: int | None = getattr(self.model.config, "max_position_embeddings", None)

    def encode(self, text: str) -> list[int]:
        """See :class:`Language`; special tokens are added as the tokenizer does, or where there is nothing else."""
        tokens: list[int] = self._tokenizer(text)["input_ids"]
        if self._after_document:
            return [self._tokenizer.eos_token_id, *tokens]
        if not tokens:
            starts = (self._tokenizer.bos_token_id, self._tokenizer.eos_token_id, 0)
            tokens = [next(one for one in starts if one is not None)]
        return tokens

    def decode(self, prompt: Sequence[int], tokens: Sequence[int]) -> str:
        """See :class:`Language`."""
        before, after = (self._text(ids) for ids in (prompt, [*prompt, *tokens]))
        return after[len(before) :]

    def _text(self, tokens: Sequence[int]) -> str:
        told = self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(told)

    def decoding(self) -> Decoding:
        """See :class:`Language`."""
        return _HuggingFaceCached(self.model)

    def logits(self, tokens: Tensor) -> Tensor:
        """See :class:`Language`."""
        result: Tensor = self.model(tokens.to(self.model.device), use_cache=False).logits
        return result

    def losses(self, tokens: Tensor) -> Tensor:
        """See :class:`Language`; read in pieces, with the model's cache."""
        row, cache, out = tokens.to(self.model.device), None, []
        size = max(_LEAST_PIECE, _LOGITS // self.model.config.get_text_config().vocab_size)
        for at in range(0, len(row) - 1, size):
            targets = row[at + 1 : at + 1 + size]
            told = self.model(row[None, at : at + len(targets)], past_key_values=cache, use_cache=True)
            cache = told.past_key_values
            out.append(fn.cross_entropy(told.logits[0].float(), targets, reduction="none").cpu())
        return torch.cat(out)


class _HuggingFaceCached:
    """:class:`Decoding` with a model of transformers."""

    def __init__(self, model: Any) -> None:
        self._model, self._cache = model, None

    def read(self, tokens: np.ndarray) -> Tensor:
        told = self._model(
            torch.from_numpy(tokens).to(self._model.device),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._cache = told.past_key_values
        result: Tensor = told.logits[:, -1]
        return result

    def keep(self, rows: Sequence[int]) -> None:
        cache: Any = self._cache
        cache.reorder_cache(torch.tensor(rows, device=self._model.device))
