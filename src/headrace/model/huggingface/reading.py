"""Read a model from a folder: config.json and safetensors, checked before any tensor is read.

Nothing is unpickled: files whose names end in .bin or .pt are never opened.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from headrace.errors import UserError
from headrace.model.config import parameter_count
from headrace.model.huggingface.families import FAMILIES
from headrace.model.huggingface.family import Family
from headrace.model.huggingface.layout import OWN, Layout, ours
from headrace.model.transformer import Transformer, fill
from headrace.recipe.model import ModelConfig

ONE, INDEX = "model.safetensors", "model.safetensors.index.json"
_FLOATS = {"F64", "F32", "F16", "BF16"}
_MOST_CONFIG = 16 << 20  # bytes; the index of a model with 100,000 tensors has 8 MB


@dataclass(frozen=True)
class Found:
    """A tensor in a file.

    Attributes:
        path: the file.
        name: its name there.
        shape: its shape.
        dtype: as safetensors spells it.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: str

    def read(self) -> Tensor:
        """The tensor, on the CPU."""
        with safe_open(self.path, framework="pt") as file:
            return file.get_tensor(self.name)


@dataclass(frozen=True)
class Stored:
    """A model in a folder.

    Attributes:
        path: the folder.
        config: what headrace's model it is.
        layout: where its tensors are.
        tensors: theirs by name.
    """

    path: Path
    config: ModelConfig
    layout: Layout
    tensors: Mapping[str, Found]

    @staticmethod
    def open(path: Path | str) -> Stored:
        """Look at a folder: one of Hugging Face's, of the released CrystalCoder, or of headrace's own models.

        Raises:
            UserError: it holds no model that headrace's own can be, or not all of its tensors.
        """
        folder = Path(path)
        config, family = read_config(folder)
        layout = OWN if family is None else family.layout
        return Stored(folder, config, layout, _matched(config, layout, tensors(folder), folder))

    @property
    def files(self) -> list[Path]:
        """The files that the weights are read from."""
        return sorted({found.path for found in self.tensors.values()})

    @property
    def shapes(self) -> dict[str, torch.Size]:
        """The shape of each of the model's parameters."""
        return ours(self.config)

    def load(self, model: Transformer) -> None:
        """Fill a model's parameters, or this process's shards of them, one tensor at a time.

        Raises:
            UserError: a file has changed since.
        """
        for name, parameter in model.named_parameters():
            fill(parameter, self.parameter(name))

    def parameter(self, name: str) -> Tensor:
        """One of the model's parameters, float32.

        Raises:
            UserError: a file has changed since.
        """
        try:
            tensor = self.layout.back(self.config, name, lambda theirs: self.tensors[theirs].read()).float()
        except (SafetensorError, OSError) as error:
            raise _broken(self.path, error) from None
        return refuse_nan(name, tensor, self.path)


def read_config(folder: Path) -> tuple[ModelConfig, Family | None]:
    """The model of a folder's config.json, and its family; None for one of headrace's own.

    Raises:
        UserError: there is none, or it is of an architecture that headrace's own model cannot be.
    """
    told = read_json(folder / "config.json")
    kind = told.get("model_type")
    if kind is None and "width" in told:
        try:
            own = ModelConfig.model_validate(told)
            if own.vocab_size is None:
                raise ValueError
            return own, None
        except ValueError:
            raise UserError(
                "This is not a model's configuration.", str(folder / "config.json"), "Copy it again."
            ) from None
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise UserError(
            f"Models of type {kind!r} cannot be headrace's own.",
            str(folder / "config.json"),
            f"Its own can be {', '.join(FAMILIES)}; others are trained as `model: {{huggingface: PATH}}`.",
        )
    try:
        return FAMILIES[kind].model(told), FAMILIES[kind]
    except UserError as error:
        raise UserError(error.what, str(folder / "config.json"), error.fix) from None


def tensors(folder: Path, needed: bool = True) -> dict[str, Found]:
    """The tensors in a folder's safetensors by name, from the files' headers.

    Args:
        folder: the folder.
        needed: whether there must be weights; without, none are none, but pickled ones are refused all the same.

    Raises:
        UserError: there are none, the index names files elsewhere, or a file is damaged.
    """
    if (folder / INDEX).is_file():
        named = read_json(folder / INDEX).get("weight_map")
        if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
            raise UserError("The index lists no files.", str(folder / INDEX), "Copy the model again.")
        files = sorted(set(named.values()))
        for name in files:
            if not re.fullmatch(r"[\w.-]+\.safetensors", name):
                raise UserError(f"The index names {name!r}, no file beside it.", str(folder / INDEX), "Copy it again.")
    elif (folder / ONE).is_file():
        files = [ONE]
    else:
        pickled = sorted(p.name for p in folder.glob("*") if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".mdl"))
        if not needed and not pickled:
            return {}
        raise UserError(
            f"There is no {ONE} in the folder" + (f", only {pickled[0]}, which is not opened: reading such a file can"
            " run what somebody put into it." if pickled else "."),
            str(folder),
            "If you trust its origin, convert it: python -c \"from transformers import AutoModelForCausalLM as M; "
            "M.from_pretrained('IN').save_pretrained('OUT')\"." if pickled else "Name a folder with a model.",
        )  # fmt: skip
    found: dict[str, Found] = {}
    for file in files:
        path = folder / file
        try:
            with safe_open(path, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - not a dict
                    part = opened.get_slice(name)
                    found[name] = Found(path, name, tuple(part.get_shape()), part.get_dtype())
        except (SafetensorError, OSError) as error:
            raise _broken(path, error) from None
    return found


def _matched(config: ModelConfig, layout: Layout, found: Mapping[str, Found], folder: Path) -> dict[str, Found]:
    """Their tensors by the layout's names.

    Raises:
        UserError: some are missing, of another shape or type, or belong to no part of the model.
    """
    there, needed = sum(math.prod(one.shape) for one in found.values()), parameter_count(config)
    if needed > 2 * there:  # before shapes are made of what a damaged configuration says
        raise UserError(
            f"By its configuration the model has {needed:,} parameters; the files hold {there:,}.",
            str(folder),
            "Copy the model again.",
        )
    wanted = layout.shapes(config)
    spelled = {layout.base + name if layout.base + name in wanted else name: one for name, one in found.items()}
    renamed = {"lm_head.weight": "embed_out.weight", "embed_out.weight": "lm_head.weight"}
    for old, new in renamed.items():  # GPT-NeoX's head was renamed in transformers 5
        if new in wanted and new not in spelled and old in spelled:
            spelled[new] = spelled.pop(old)
    missing = sorted(set(wanted) - set(spelled))
    extra = sorted(name for name in set(spelled) - set(wanted) if not _harmless(name, config, layout))
    if missing or extra:
        told = [f"{what} {_few(names)}" for what, names in (("lacks", missing), ("has also", extra)) if names]
        raise UserError(
            f"The model's tensors are not those of its configuration: it {', and '.join(told)}.",
            str(folder),
            "Copy the model again; a model with other parts is trained as `model: {huggingface: PATH}`.",
        )
    for name, (_, shape) in wanted.items():
        one = spelled[name]
        if one.shape != tuple(shape):
            raise UserError(
                f"{name} is {list(one.shape)}; by the configuration it is {list(shape)}.",
                str(one.path),
                "Copy it again.",
            )
        if one.dtype not in _FLOATS:
            raise UserError(
                f"{name} is {one.dtype}, not a floating-point type.", str(one.path), "Use a model not quantized."
            )
    return {name: spelled[name] for name in wanted}


def _harmless(name: str, config: ModelConfig, layout: Layout) -> bool:
    """Whether a tensor of a file is no parameter: tables that are computed, and a tied head's copy."""
    return name.endswith(layout.buffers) or (config.tied and name in ("lm_head.weight", "embed_out.weight"))


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def read_json(path: Path) -> dict[str, Any]:
    """An object in a file of somebody else's.

    Raises:
        UserError: the file is missing, too large, or holds none.
    """
    try:
        if path.stat().st_size > _MOST_CONFIG:
            raise UserError("The file is too large for what it should hold.", str(path), "Copy it again.")
        told = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(
            "There is no such file.",
            str(path),
            "Name a folder with config.json and weights, as `hf download NAME --local-dir FOLDER` makes.",
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"The file cannot be read: {error}", str(path), "Copy the model again.") from None
    if not isinstance(told, dict):
        raise UserError("The file holds no object.", str(path), "Copy the model again.")
    return told


def refuse_nan(name: str, tensor: Tensor, path: Path) -> Tensor:
    """The tensor.

    Raises:
        UserError: it has values that are not finite.
    """
    if not tensor.isfinite().all():
        wrong = int((~tensor.isfinite()).sum())
        raise UserError(
            f"{name} has {wrong:,} values that are not finite.", str(path), "Copy the model again, or use another."
        )
    return tensor


def _broken(path: Path, error: Exception) -> UserError:
    return UserError(f"The weights cannot be read: {error}", str(path), "Copy the model again.")


def load(path: Path | str, dtype: torch.dtype = torch.float32) -> Transformer:
    """A model from a folder, on the CPU.

    Raises:
        UserError: as for :meth:`Stored.open`.
    """
    stored = Stored.open(path)
    with torch.device("meta"):
        model = Transformer(stored.config, dtype)
    model.to_empty(device="cpu")
    stored.load(model)
    return model
