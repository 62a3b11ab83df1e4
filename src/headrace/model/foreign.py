"""Any causal model that transformers has, behind the face of :class:`headrace.model.transformer.Transformer`.

It is trained as transformers computes it, without dropout. No code from its folder is run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as fn
from torch import Tensor, nn

from headrace.errors import UserError
from headrace.flow.keys import salt
from headrace.model.config import ForeignConfig
from headrace.model.huggingface.reading import read_json, refuse_nan
from headrace.model.transformer import fill

_NOT_THE_MODELS = ("_name_or_path", "transformers_version", "auto_map", "torch_dtype", "dtype", "use_cache")
_MOST_LAYERS = 10_000  # more are a damaged file, and modules without end
_OTHER = "Use a decoder of text alone that this transformers has."
# Layers that see others through a mask alone; recurrent ones and convolutions carry a state across documents.
_MASKED = {"full_attention", "sliding_attention", "chunked_attention"}


def read_foreign(folder: Path) -> ForeignConfig:
    """The model of a folder's config.json.

    Raises:
        UserError: there is none, transformers is not installed, or has no such causal model.
    """
    path = folder / "config.json"
    told = read_json(path)
    try:
        if "auto_map" in told and not _known(told.get("model_type")):
            raise UserError(
                f"The model's code lies beside it (model_type {told.get('model_type')!r}, trust_remote_code). Such code"
                " is not run.",
                "config.json",
                "Use a model that this transformers has, or a newer transformers.",
            )
        told = {key: value for key, value in told.items() if key not in _NOT_THE_MODELS}
        size = getattr(configuration(told), "vocab_size", None)
        if not isinstance(size, int) or size < 1:
            raise UserError("The configuration has no vocab_size.", "config.json", "Copy the model again.")
        config = ForeignConfig(huggingface=told, vocab_size=size)
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


def _known(kind: Any) -> bool:
    try:
        from transformers import CONFIG_MAPPING
    except ImportError:
        raise UserError(
            "`model.huggingface` needs transformers, not installed here.", "model", "pip install transformers"
        ) from None
    return isinstance(kind, str) and kind in CONFIG_MAPPING


def configuration(huggingface: Mapping[str, Any]) -> Any:
    """A config.json as transformers has it.

    Raises:
        UserError: it has no such model, or one that does not predict text from text before it.
    """
    told = dict(huggingface)
    kind = told.pop("model_type", None)
    if not _known(kind):
        raise UserError(
            f"transformers has no model of type {kind!r}.",
            "config.json",
            "Use one that it has, or a newer transformers.",
        )
    from transformers import AutoConfig

    try:
        config = AutoConfig.for_model(kind, **told)
        composite, layers = config.get_text_config() is not config, getattr(config, "num_hidden_layers", 1)
    except Exception as error:  # transformers raises many kinds for what a configuration may say
        raise UserError(
            f"The configuration cannot be used: {_first_line(error)}", "config.json", "Copy the model again."
        ) from None
    if getattr(config, "is_encoder_decoder", False):
        raise UserError(f"{kind} is an encoder and a decoder: its text has two parts.", "config.json", _OTHER)
    if composite or hasattr(config, "vision_config"):
        raise UserError(f"{kind} is a model of more than text, such as images.", "config.json", _OTHER)
    if told.get("quantization_config"):
        raise UserError(
            "The model is quantized: its weights cannot be trained.", "config.json", "Use the model it was made from."
        )
    if not isinstance(layers, int) or layers > _MOST_LAYERS:
        raise UserError(f"The configuration has {layers} layers.", "config.json", "Copy the model again.")
    return config


def _made(config: ForeignConfig) -> Any:
    """The model of transformers, on the CPU, with weights drawn by torch's own generator."""
    found = configuration(config.huggingface)
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("cpu"):
            return AutoModelForCausalLM.from_config(found, dtype=torch.float32)
    except Exception as error:
        raise UserError(
            f"transformers makes no causal model of this configuration: {_first_line(error)}", "config.json", _OTHER
        ) from None


@torch.no_grad()
def _refuse_sight(model: Any, where: str) -> Any:
    """Refuse a model that sees what it is to predict, such as BERT unless it was made a decoder.

    Raises:
        UserError: another last token changes what it says of those before.
    """
    size = model.config.vocab_size
    tokens = torch.arange(8)[None] % size
    changed = torch.cat((tokens[:, :-1], (tokens[:, -1:] + 1) % size), dim=1)
    one, other = (model.eval()(input_ids=x, use_cache=False).logits[:, :-1] for x in (tokens, changed))
    if not torch.allclose(one, other, rtol=1e-3, atol=1e-4 * one.abs().max().item(), equal_nan=True):
        raise UserError(
            f"{type(model).__name__} is no causal model: what it says of a token depends on later ones.",
            where,
            "Set `is_decoder: true` in its config.json, if it has that key, or use a decoder.",
        )
    return model


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

    exchange = None

    def share_rows(self, exchange: Any, tensor_size: int = 1) -> None:
        """Nothing, as rows are whole.

        Raises:
            UserError: they are to be shared.
        """
        if exchange is not None:
            raise UserError(
                "A model of transformers does not share rows among processes.",
                "train.long.sequence_parallel",
                "Set it to 1.",
            )

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
        out = self._computed(tokens, positions, segments)
        if targets is None:
            return out.logits
        logits = out.logits.flatten(0, 1)
        if picked is not None:
            logits = logits[picked]
        logits = logits.float()
        losses = fn.cross_entropy(logits, targets.flatten(), reduction="none")
        weights = torch.ones_like(losses) if weights is None else weights.flatten()
        penalized = losses if z_loss == 0 else losses + z_loss * logits.logsumexp(-1) ** 2
        loss = (penalized * weights).sum()
        if self._balanced:  # of experts, as transformers adds it to its own loss
            loss = loss + self.model.router_aux_loss_coef * weights.sum() * out.aux_loss.to(loss.device)
        return loss, losses.detach()

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
        out = self._computed(tokens, positions, segments, cache)
        if cache is not None:
            cache[:] = [out.past_key_values]
        return out.logits

    def _computed(
        self, tokens: Tensor, positions: Tensor | None, segments: Tensor | None, cache: list[Any] | None = None
    ) -> Any:
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
            return self.model(input_ids=tokens, **more)

    def keep_rows(self, cache: list[Any], rows: Tensor) -> None:
        """Go on with some rows of a cache, int64 [n], in this order."""
        for state in cache:
            state.batch_select_indices(rows)

    def logits(self, hidden: Tensor) -> Tensor:
        """As they are."""
        return hidden

    @property
    def _balanced(self) -> bool:
        """Whether the loss has a part that spreads tokens over experts."""
        return bool(getattr(self.model.config, "output_router_logits", False)) and hasattr(
            self.model, "router_aux_loss_coef"
        )

    def _require(self, argument: str, what: str, fix: str) -> None:
        model, config = self.model, self.model.config
        # Models with a state, or with biases that grow with distance, in the place of attention take no such mask.
        attends = any(getattr(model, f"_supports_{way}", False) for way in ("sdpa", "attention_backend"))
        other = getattr(model, "_is_stateful", False) or getattr(config, "alibi", False)
        other = other or not set(getattr(config, "layer_types", None) or ()) <= _MASKED
        if not attends or other or argument not in inspect.signature(model.forward).parameters:
            raise UserError(f"{type(model).__name__} has no place for {what}.", "train.attention", f"Set {fix}.")
        if argument == "attention_mask" and self._balanced:
            raise UserError(
                f"{type(model).__name__}'s loss of experts has no place for {what}.",
                "train.attention",
                f"Set {fix}, or output_router_logits: false in config.json.",
            )

    def _mask(self, segments: Tensor) -> Any:
        """What each position sees: causal, within its document, and within the window of layers that have one.

        A tensor [B, 1, T, T], or one for each kind of layer.
        """
        from transformers.masking_utils import create_masks_for_generate

        at = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
        new = torch.ones_like(segments, dtype=torch.bool)
        new[:, 1:] = segments[:, 1:] != segments[:, :-1]
        within = at - (at * new).cummax(dim=1).values  # where these start again, transformers begins a document
        like = torch.empty(*segments.shape, 1, dtype=self.dtype, device=segments.device)
        masks = create_masks_for_generate(self.model.config, like, None, None, within)
        return next(iter(masks.values())) if isinstance(masks, dict) and len(masks) == 1 else masks

    def initialise(self, seed: int) -> None:
        """Draw all weights as transformers does, whole in each process, which keeps its part."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(salt(seed, "init", "huggingface") % 2**63)
            whole = dict(_refuse_sight(_made(self.config), "model.huggingface").named_parameters())
        for name, parameter in self.model.named_parameters():
            fill(parameter, whole[name].data)

    @staticmethod
    def save(config: ForeignConfig, get: Callable[[str], Tensor], out: Path, most: int, dtype: torch.dtype) -> None:
        """Write config.json and safetensors as transformers does, by the names that it publishes models with.

        Args:
            config: the model.
            get: returns a parameter by this module's name.
            out: an existing folder.
            most: bytes in a file.
            dtype: of the weights to write.
        """
        model = Foreign(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(get(name))
        model.model.to(dtype).save_pretrained(out, max_shard_size=most)

    @staticmethod
    def load(config: ForeignConfig, folder: Path) -> dict[str, Tensor]:
        """The weights in a folder by this module's names, float32.

        Raises:
            UserError: they are not safetensors, or not those of the configuration.
        """
        from transformers import AutoModelForCausalLM

        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                config=configuration(config.huggingface),
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
        found = {f"model.{name}": parameter.detach() for name, parameter in model.named_parameters()}
        for name, tensor in found.items():
            refuse_nan(name, tensor, folder)
        _refuse_sight(model, str(folder))
        return found


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
