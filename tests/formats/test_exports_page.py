"""The pieces of code in docs/exports.md, run on exports."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench import mosaic
from headrace.export import write
from headrace.formats.format import Exported
from headrace.formats.options import Options
from headrace.formats.sequences import SequenceExport
from headrace.recipe.load import load_recipe
from headrace.sequence.reader import SEGMENT

PAGE = Path(__file__).parents[2] / "docs" / "exports.md"


def pieces(heading: str) -> list[str]:
    """The pieces of Python below a heading."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n### {heading}\n")[1].split("\n### ")[0]
    return re.findall(r"^```python\n(.*?)^```", section, flags=re.DOTALL | re.MULTILINE)


def named(one: Exported, out: Path) -> dict[str, Any]:
    """The names that the pieces use."""
    ours = one.open()
    tokenizer = SimpleNamespace(vocab_size=ours.vocab_size, eod=-2, pad=-1, unique_identifiers={})
    return {
        "out": str(out),
        "stage": one.name,
        "prefix": str(out / one.name),
        "L": ours.seq_len,
        "dtype": ours.dtype.type,
        "vocab_size": ours.vocab_size,
        "eos": 0,
        "pad": 0,
        "tokenizer": tokenizer,
    }


@pytest.fixture
def chat(sequences: tuple[Exported, ...], request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Exported, dict]:
    """A stage with a mask, exported in a format, and the names."""
    out = write(SequenceExport(request.param, sequences[:1], Options()), tmp_path / "out", workers=0)
    return sequences[0], named(sequences[0], out)


@pytest.mark.parametrize("chat", ["megatron"], indirect=True)
@pytest.mark.filterwarnings("ignore")
def test_megatron(chat):
    pytest.importorskip("megatron.core.datasets.gpt_dataset")
    ours, names = chat[0].open(), chat[1]
    opened, in_order, with_loss = pieces("Megatron")
    exec(opened, names)
    exec(in_order, names)
    dataset = names["dataset"]
    rows = ours.rows(0, len(ours)).astype(np.int64)
    assert len(dataset) == len(ours)
    assert all((dataset[i]["tokens"].numpy() == rows[i]).all() for i in range(len(ours)))
    exec(with_loss, names)
    dataset.__class__ = names["LearnedGPTDataset"]
    padding = ours.segments_in(0, len(ours)).padding(ours.seq_len)
    learned = ours.targets(0, len(ours)) & ~padding
    assert not learned.all()
    for i in range(len(ours)):
        assert (dataset[i]["loss_mask"].numpy()[:-1] == learned[i]).all()
        assert (dataset[i]["labels"].numpy()[:-1] == rows[i, 1:]).all()


@pytest.mark.parametrize("chat", ["olmo-core"], indirect=True)
def test_olmo_core(chat):
    pytest.importorskip("olmo_core.data.numpy_dataset")
    ours, names = chat[0].open(), chat[1]
    exec(pieces("OLMo-core")[0], names)
    assert len(names["dataset"]) == len(ours)
    for i in range(len(ours)):
        item = names["dataset"][i]
        assert (item["input_ids"].numpy() == ours.rows(i, i + 1)[0]).all()
        assert (item["label_mask"].numpy()[1:] <= ours.targets(i, i + 1)[0]).all()


@pytest.mark.parametrize("chat", ["hdf5", "hdf5-vsl"], indirect=True)
def test_hdf5(chat):
    ours, names = chat[0].open(), chat[1]
    exec(pieces("HDF5")[0], names)
    assert (names["input_ids"] == ours.rows(0, 1)[0, :-1]).all()
    assert (names["labels"] == ours.rows(0, 1)[0, 1:]).all()
    learned = ours.targets(0, 1) & ~ours.segments_in(0, 1).padding(ours.seq_len)
    assert (names["loss_mask"] == learned[0]).all()


def test_the_recipe_for_cerebras_files_is_one(tmp_path):
    [text] = re.findall(r"^```yaml\n(name: phase2.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    [stage] = load_recipe(path).stages
    assert stage.sequence[1].path == (str(tmp_path / "phase2/StarCoder_fim_shuffled"),)


@pytest.mark.parametrize("chat", ["nanotron"], indirect=True)
def test_nanotron(chat):
    pytest.importorskip("datatrove.utils.dataset")
    ours, names = chat[0].open(), chat[1]
    exec(pieces("nanotron")[0], names)
    assert len(names["dataset"]) == len(ours)
    assert all((names["dataset"][i]["input_ids"].numpy() == ours.rows(i, i + 1)[0]).all() for i in range(len(ours)))
    records = np.fromfile(Path(names["out"]) / names["stage"] / "data-00000.ds.segments", SEGMENT)
    assert (records == np.concatenate([ours.segments(row) for row in range(len(ours))])).all()


@pytest.mark.parametrize(
    "chat", ["mds", "litdata", "litdata-tokens", "webdataset", "array_record"], indirect=True, ids=lambda name: name
)
def test_samples(chat, request, monkeypatch):
    format = request.node.callspec.params["chat"]
    if format == "mds":  # the package imports torchvision, for images
        monkeypatch.setattr("streaming.StreamingDataset", mosaic.streaming().StreamingDataset, raising=False)
    ours, names = chat[0].open(), chat[1]
    [piece] = pieces(format)
    exec(piece, names)
    assert (names["tokens"] == ours.rows(0, 1)[0]).all()
    if format != "litdata-tokens":
        learned = ours.targets(0, 1) & ~ours.segments_in(0, 1).padding(ours.seq_len)
        assert (names["loss_mask"][1:] == learned[0]).all()
