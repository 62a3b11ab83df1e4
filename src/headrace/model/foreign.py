"""Any causal model that transformers has, behind the face of :class:`headrace.model.transformer.Transformer`.

It is trained as transformers computes it, without dropout. No code from its folder is run.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as fn
from torch import Tensor, nn

from headrace.errors import UserError
from headrace.flow.keys import salt
from headrace.model.config import ForeignConfig
from headrace.model.transformer import fill

_NOT_THE_MODELS = ("_name_or_path", "transformers_version", "auto_map", "torch_dtype", "dtype", "use_cache")


def read_foreign(folder: Path) -> ForeignConfig:
    """The model of a folder's config.json.

    Raises:
        UserError: there is none, transformers is not installed, or has no such model.
    """
    from headrace.model.huggingface.reading import read_json

    path = folder / "config.json"
    told = {key: value for key, value in read_json(path).items() if key not in _NOT_THE_MODELS}
    size = told.get("vocab_size")
    if not isinstance(size, int) or size < 1:
        raise UserError("The configuration has no vocab_size.", str(path), "Copy the model again.")
    config = ForeignConfig(huggingface=told, vocab_size=size)
    try:
        count(config)
    except UserError as error:
        raise UserError(error.what, str(path), error.fix) from None
    return config


def count(config: ForeignConfig, embedding: bool = True) -> int:
    """The number of parameters, each tensor once; or of those in no embedding and not the head's."""
    with torch.device("meta"):
        model = Foreign(config)
    inside = model.between
    return sum(p.numel() for p in model.parameters() if embedding or id(p) in inside)


def _made(config: ForeignConfig) -> Any:
    """The model of transformers, on the CPU, with weights drawn by torch's own generator."""
    try:
        from transformers import AutoConfig, AutoModelForCausalLM
    except ImportError:
        raise UserError(
            "`model.huggingface` needs transformers, not installed here.", "model", "pip install transformers"
        ) from None
    told = dict(config.huggingface)
    kind = told.pop("model_type", None)
    try:
        with torch.device("cpu"):
            return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **told), dtype=torch.float32)
    except Exception as error:  # transformers raises many kinds for what a configuration may say
        raise UserError(
            f"transformers makes no causal model of this configuration: {_first_line(error)}",
            "config.json",
            "Code that lies beside a model is not run: use a model that this transformers has, or a newer one.",
        ) from None


class Foreign(nn.Module):
    """A model of transformers.

    Args:
        config: its configuration.
        dtype: bfloat16 computes under autocast; weights stay in float32.
    """

    def __init__(self, config: ForeignConfig, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        from transformers.initialization import no_init_weights

        self.config, self.dtype = config, dtype
        on_meta = torch.empty(0).is_meta
        with no_init_weights():  # memory that nothing writes to is never taken
            self.model = _made(config).eval()
        self.model.tie_weights()
        if on_meta:
            self._forget()

    def _forget(self) -> None:
        """Move parameters to ``meta``; buffers, which are computed and not drawn, stay."""
        for module in self.model.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    module._parameters[name] = nn.Parameter(parameter.to("meta"))
        self.model.tie_weights()

    def to_empty(self, *, device: Any, recurse: bool = True) -> Foreign:
        """As torch's, but buffers keep their values and tied weights stay tied."""
        kept = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        super().to_empty(device=device, recurse=recurse)
        for name, buffer in self.model.named_buffers():
            buffer.copy_(kept[name])
        self.model.tie_weights()
        return self

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """Its parameters by name, each tensor once; they share memory with the module."""
        return {name: parameter.detach() for name, parameter in self.named_parameters()}

    def load_state_dict(self, tensors: Mapping[str, Tensor], *_: Any, **__: Any) -> None:  # type: ignore[override]
        """Copy what :meth:`state_dict` returned."""
        for name, parameter in self.state_dict().items():
            parameter.copy_(tensors[name])

    def train(self, mode: bool = True) -> Foreign:
        """Nothing: without dropout, training computes what evaluation does, and draws nothing."""
        return self

    @property
    def blocks(self) -> nn.ModuleList:
        """Its layers."""
        return max((m for m in self.model.modules() if isinstance(m, nn.ModuleList)), key=len)

    @property
    def embedding(self) -> nn.Embedding:
        """Its token embedding."""
        found: nn.Embedding = self.model.get_input_embeddings()
        return found

    @property
    def between(self) -> set[int]:
        """The ids of parameters that are in no embedding and not the head's."""
        ends = [module for module in self.model.modules() if isinstance(module, nn.Embedding)]
        head = self.model.get_output_embeddings()
        outside = {id(p) for module in [*ends, *([] if head is None else [head])] for p in module.parameters()}
        return {id(p) for p in self.parameters()} - outside

    def hidden_matrices(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Its matrices between embeddings and head."""
        inside = self.between
        return ((name, p) for name, p in self.named_parameters() if p.dim() >= 2 and id(p) in inside)

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        targets: Tensor | None = None,
        weights: Tensor | None = None,
        picked: Tensor | None = None,
        z_loss: float = 0.0,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits, or the loss: see :meth:`headrace.model.transformer.Transformer.forward`."""
        logits = self.hidden(tokens, positions, segments)
        if targets is None:
            return logits
        logits = logits.flatten(0, 1)
        if picked is not None:
            logits = logits[picked]
        logits = logits.float()
        losses = fn.cross_entropy(logits, targets.flatten(), reduction="none")
        weights = torch.ones_like(losses) if weights is None else weights.flatten()
        penalized = losses if z_loss == 0 else losses + z_loss * logits.logsumexp(-1) ** 2
        return (penalized * weights).sum(), losses.detach()

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        cache: list[Any] | None = None,
    ) -> Tensor:
        """Logits, which :meth:`logits` returns as they are: models differ in what they do to their last states.

        Raises:
            UserError: the architecture has no place for positions or segments.
        """
        more: dict[str, Any] = {"use_cache": cache is not None}
        if cache:
            more["past_key_values"] = cache[0]
        if positions is not None:
            self._require("position_ids", "positions that start again in each document", "attention.positions: row")
            more["position_ids"] = positions.long().expand(len(tokens), -1)
        if segments is not None:
            self._require("attention_mask", "attention within documents", "attention.documents: false")
            more["attention_mask"] = self._mask(segments)
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            out = self.model(input_ids=tokens, **more)
        if cache is not None:
            cache[:] = [out.past_key_values]
        logits: Tensor = out.logits
        return logits

    def keep_rows(self, cache: list[Any], rows: Tensor) -> None:
        """Go on with some rows of a cache, int64 [n], in this order."""
        for state in cache:
            state.batch_select_indices(rows)

    def logits(self, hidden: Tensor) -> Tensor:
        """As they are."""
        return hidden

    def _require(self, argument: str, what: str, fix: str) -> None:
        # Models with a state, or with biases that grow with distance, in the place of attention take no such mask.
        attends = any(getattr(self.model, f"_supports_{way}", False) for way in ("sdpa", "attention_backend"))
        other = getattr(self.model, "_is_stateful", False) or self.config.huggingface.get("alibi", False)
        if not attends or other or argument not in inspect.signature(self.model.forward).parameters:
            raise UserError(f"{type(self.model).__name__} has no place for {what}.", "train.attention", f"Set {fix}.")

    def _mask(self, segments: Tensor) -> Tensor:
        """Added to scores: 0 where a position is seen, else the least number; [B, 1, T, T]."""
        size = segments.shape[1]
        causal = torch.ones(size, size, dtype=torch.bool, device=segments.device).tril()
        seen = (segments[:, :, None] == segments[:, None, :]) & causal
        mask = torch.zeros(seen.shape, dtype=self.dtype, device=segments.device)
        return mask.masked_fill(~seen, torch.finfo(self.dtype).min).unsqueeze(1)

    def initialise(self, seed: int) -> None:
        """Draw all weights as transformers does, whole in each process, which keeps its part."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(salt(seed, "init", "huggingface") % 2**63)
            whole = dict(_made(self.config).named_parameters())
        for name, parameter in self.model.named_parameters():
            fill(parameter, whole[name].data)

    @staticmethod
    def load(config: ForeignConfig, folder: Path) -> dict[str, Tensor]:
        """The weights in a folder by this module's names, float32.

        Raises:
            UserError: they are not safetensors, or not those of the configuration.
        """
        from transformers import AutoConfig, AutoModelForCausalLM

        told = dict(config.huggingface)
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                config=AutoConfig.for_model(told.pop("model_type"), **told),
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except Exception as error:
            raise UserError(
                f"The weights cannot be read: {_first_line(error)}",
                str(folder),
                "Copy the model again, or install the transformers that it was saved with.",
            ) from None
        model, report = loaded
        if missing := sorted(report["missing_keys"]):
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise UserError(f"The weights lack {missing[0]}{more}.", str(folder), "Copy the model again.")
        return {f"model.{name}": parameter.detach() for name, parameter in model.named_parameters()}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
