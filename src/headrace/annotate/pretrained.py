"""A model of transformers in a folder, with its tokenizer, applied to windows of texts.

Only safetensors are read, and no code from the folder is run. What the configuration promises is compared with the
weights that are there before memory is taken for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from headrace.errors import UserError
from headrace.model.huggingface.reading import read_json, refuse_nan, tensors
from headrace.model.machine import device
from headrace.select.quality.windows import Ids, batches

WINDOW = 512  # tokens; what encoders of BERT's kind read
_TOKENS = 8192  # computed together: 16 windows of 512
_MOST_LAYERS = 10_000  # more are a damaged file, and modules without end
_TOKENIZERS = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "spm.model",
)
_UNUSED = ("pooler.", "position_ids")  # parts that need not be there: a model's states are pooled here


class Pretrained:
    """A model of transformers with its tokenizer.

    Args:
        folder: where it lies.
        auto: the class of transformers that makes it, such as ``AutoModel``.
        window: tokens that it is given at a time, special tokens included; None for what it reads, at most
            :data:`WINDOW`.
        bf16: whether to compute in bfloat16, whose products take half the time where the machine has them.
        where: the recipe's key, for errors.

    Raises:
        UserError: transformers is not installed, or the folder holds no such model, or it reads fewer tokens.
    """

    def __init__(self, folder: Path, auto: str, window: int | None, bf16: bool, where: str) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # workers are forked, and have a core each
        try:
            import transformers
        except ModuleNotFoundError:
            raise UserError(
                "Models of Hugging Face need transformers, which is not installed.",
                where,
                "Install it: pip install 'headrace[annotators]'.",
            ) from None
        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()
        self.folder, self._bf16 = folder, bf16
        self.model = _model(folder, getattr(transformers, auto)).to(device()).eval()
        self._tokenizer = _tokenizer(folder, transformers)
        self._before, self._after = self._special()
        self._pad = int(self._tokenizer.pad_token_id or 0)
        most = self._reads()
        if window is not None and window > most:
            raise UserError(f"The model reads {most} tokens at a time, not {window}.", where, f"Set {most} or less.")
        self.length = (min(most, WINDOW) if window is None else window) - len(self._before) - len(self._after)
        if self.length < 1:
            raise UserError("The window has no room for text.", where, "Set a longer one.")
        try:
            with torch.inference_mode():
                self.forward([np.zeros(1, dtype=np.int32)])
        except Exception as error:  # a model of images, or with a decoder, asks for more than ids
            raise UserError(
                f"{type(self.model).__name__} cannot be given a text alone: {_first_line(error)}",
                str(folder),
                "Name the folder of an encoder of text, such as BERT.",
            ) from None

    def encode(self, texts: list[str]) -> list[Ids]:
        """The ids of each text without special tokens, int32[tokens]."""
        told = self._tokenizer(texts, add_special_tokens=False, return_attention_mask=False, truncation=False)
        found = [np.array(ids, dtype=np.int32) for ids in told["input_ids"]]
        size = self.model.get_input_embeddings().num_embeddings
        if any(len(ids) and int(ids.max()) >= size for ids in found):
            raise UserError(
                f"The tokenizer has ids that the model has not: it has {size:,}.", str(self.folder), "Copy it again."
            )
        return found

    def compute(
        self, windows: Sequence[Ids], read: Callable[[Any, Tensor], Tensor], width: int
    ) -> npt.NDArray[np.float32]:
        """What the model says of each window.

        Args:
            windows: from :func:`headrace.select.quality.windows.windows`.
            read: from the model's output and the mask, bool[rows, tokens], to float32[rows, width].
            width: numbers for each window.

        Returns:
            float32[windows, width].
        """
        out = np.empty((len(windows), width), dtype=np.float32)
        with torch.inference_mode():
            for rows in batches([len(self._before) + len(ids) + len(self._after) for ids in windows], _TOKENS):
                out[rows] = read(*self.forward([windows[row] for row in rows.tolist()])).float().cpu().numpy()
        return out

    def forward(self, windows: Sequence[Ids]) -> tuple[Any, Tensor]:
        """The model's output for some windows that are padded to the longest, and the mask, bool[rows, tokens]."""
        rows = [[*self._before, *ids.tolist(), *self._after] for ids in windows]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [self._pad] * (longest - len(row)) for row in rows], device=self.model.device)
        sizes = torch.tensor([len(row) for row in rows], device=ids.device)
        mask = torch.arange(longest, device=ids.device) < sizes[:, None]
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=self._bf16):
            return self.model(input_ids=ids, attention_mask=mask.long()), mask

    def _special(self) -> tuple[list[int], list[int]]:
        """The special tokens before and after a text."""
        bare = self._tokenizer("a", add_special_tokens=False)["input_ids"]
        told = self._tokenizer("a")["input_ids"]
        for at in range(len(told) - len(bare) + 1):
            if told[at : at + len(bare)] == bare:
                return told[:at], told[at + len(bare) :]
        raise UserError("The tokenizer changes texts that it puts tokens around.", str(self.folder), "Use another.")

    def _reads(self) -> int:
        """The most tokens it reads."""
        found = [int(self._tokenizer.model_max_length)]
        for name, module in self.model.named_modules():
            if isinstance(module, torch.nn.Embedding) and "position" in name:
                before = 0 if module.padding_idx is None else module.padding_idx + 1  # RoBERTa's first are padding's
                found.append(module.num_embeddings - before)
        return min(found)


def _model(folder: Path, auto: Any) -> Any:
    """The model, float32, on the CPU.

    Raises:
        UserError: there is none, or its weights are not those of its configuration.
    """
    from transformers import AutoConfig

    told, stored = read_json(folder / "config.json"), tensors(folder)
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(folder, **options)
        layers = getattr(config, "num_hidden_layers", 1)
        if not isinstance(layers, int) or layers > _MOST_LAYERS:
            raise ValueError(f"it has {layers} layers")
        with torch.device("meta"):
            needed = sum(
                parameter.numel() for parameter in auto.from_config(config, trust_remote_code=False).parameters()
            )
        there = sum(int(np.prod(one.shape)) for one in stored.values())
        if needed > 2 * there:
            raise ValueError(f"by its configuration it has {needed:,} parameters; the files hold {there:,}")
        model, report = auto.from_pretrained(
            folder, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **options
        )
    except UserError:
        raise
    except Exception as error:  # transformers raises many kinds for what files may say
        kind = told.get("model_type")
        raise UserError(
            f"transformers makes no {auto.__name__} of this folder (model_type {kind!r}): {_first_line(error)}",
            str(folder),
            "Name a folder with such a model; code that lies in it is not run.",
        ) from None
    missing = sorted(name for name in report["missing_keys"] if not any(part in name for part in _UNUSED))
    mismatched = sorted(str(one[0]) for one in report.get("mismatched_keys") or ())
    if missing or mismatched:
        raise UserError(
            f"The weights do not have {', '.join((missing + mismatched)[:3])}, which {type(model).__name__} has.",
            str(folder),
            "Name the folder of such a model, or copy it again.",
        )
    for name, parameter in model.named_parameters():
        if not any(part in name for part in _UNUSED):
            refuse_nan(name, parameter.detach(), folder)
    return model


def _tokenizer(folder: Path, transformers: Any) -> Any:
    if not any((folder / name).is_file() for name in _TOKENIZERS):  # transformers would make one without words
        raise UserError("The folder holds no tokenizer.", str(folder), f"Put its files there: {_TOKENIZERS[0]}.")
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise UserError(
            f"transformers cannot read the model's tokenizer: {_first_line(error)}", str(folder), "Copy it again."
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
