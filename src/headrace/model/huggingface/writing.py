"""Write a model for transformers: config.json and safetensors of at most 5 GB each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headrace.model.huggingface.families import home
from headrace.model.huggingface.layout import ours
from headrace.model.huggingface.reading import ONE
from headrace.model.huggingface.reparametrized import Reparametrized
from headrace.recipe.model import ModelConfig

FILE_BYTES = 5 * 10**9  # as transformers cuts its files


class Written:
    """A model as an architecture holds it.

    Attributes:
        family: the architecture.
        config: the model, with biases of 0 where it has none.
        shapes: of its parameters by name.

    Args:
        config: the model, complete.
        get: returns one of its parameters by name.
        dtype: of the weights to write; what is computed with them is computed in float32 and rounded once.

    Raises:
        UserError: no architecture holds it.
    """

    def __init__(self, config: ModelConfig, get: Callable[[str], Tensor], dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        self.family = home(config)
        self.config = self.family.held(config)
        self.shapes = ours(self.config)
        self._own, self._get = set(ours(config)), get
        self._change = Reparametrized(config, self.config)

    @property
    def architecture(self) -> str:
        """The class of transformers."""
        return self.family.architecture

    def describe(self, length: int) -> dict[str, Any]:
        """config.json, for rows of at most ``length`` tokens."""
        return {**self.family.config(self.config, length), "torch_dtype": str(self.dtype).removeprefix("torch.")}

    def files(self, most: int = FILE_BYTES) -> list[tuple[str, list[str]]]:
        """The files to write and the parameters in each, in their order."""
        return _cut(self.shapes, most // self.dtype.itemsize)

    def tensors(self, names: list[str]) -> Iterator[tuple[str, Tensor]]:
        """Their tensors for some of the parameters."""
        for name in names:
            value = self._get(name).float() if name in self._own else torch.zeros(self.shapes[name])
            changed = self._change(name, value)
            for theirs, tensor in self.family.layout.out(self.config, name, changed).items():
                yield theirs, tensor.to(self.dtype)

    def index(self, files: list[tuple[str, list[str]]]) -> dict[str, Any]:
        """The index of several files."""
        layout = self.family.layout
        where = {theirs: file for file, names in files for name in names for theirs in layout.names(name)}
        size = self.dtype.itemsize * sum(shape.numel() for shape in self.shapes.values())
        return {"metadata": {"total_size": size}, "weight_map": where}


def _cut(shapes: Mapping[str, torch.Size], most: int) -> list[tuple[str, list[str]]]:
    """Tensors in files of at most so many entries."""
    groups: list[list[str]] = [[]]
    size = 0
    for name, shape in shapes.items():
        needs = shape.numel()
        if groups[-1] and size + needs > most:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += needs
    if len(groups) == 1:
        return [(ONE, groups[0])]
    return [(f"model-{k + 1:05d}-of-{len(groups):05d}.safetensors", names) for k, names in enumerate(groups)]


def write_whole(path: Path, shapes: Mapping[str, torch.Size], get: Callable[[str], Tensor]) -> None:
    """Write a safetensors file of float32, one tensor in memory at a time.

    Args:
        path: the file.
        shapes: of the tensors by name, in their order.
        get: returns one.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * shape.numel()
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(len(text).to_bytes(8, "little"))
        out.write(text)
        for name in shapes:
            out.write(get(name).contiguous().numpy().data)
