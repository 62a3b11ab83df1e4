"""What a recipe's model cannot do is refused before any work, and not when it comes to training."""

from __future__ import annotations

import json

import pytest

from headrace.errors import UserError
from headrace.recipe.schema import Recipe
from headrace.train.possible import check_possible

SIZE = {"vocab_size": 300, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40}
MIXTRAL = {"model_type": "mixtral", "num_key_value_heads": 2, "num_local_experts": 2}
LLAMA4 = {"model_type": "llama4_text", "num_key_value_heads": 2, "head_dim": 6, "num_local_experts": 2}
LLAMA4 |= {"pad_token_id": 0, "no_rope_layers": [1, 0]}


def recipe(model: dict, **train) -> Recipe:
    stage = {"name": "one", "sequence_length": 64, "tokens": "1k", "sources": {"s": {"weight": 1}}, "train": train}
    about = {"name": "r", "sources": {"s": {"files": "f"}}, "tokenizer": {"file": "t.json"}, "stages": [stage]}
    return Recipe.model_validate({**about, "model": model})


@pytest.mark.parametrize(
    ("told", "train", "message", "key"),
    [
        (MIXTRAL, {"long": {"tile_mlp": "auto"}}, "no feed-forward layers", "long.tile_mlp"),
        (MIXTRAL, {"tensor_parallel": 2}, "not split over processes", "tensor_parallel"),
        (LLAMA4, {"long": {"sequence_parallel": 2}}, "by places in the row", "long.sequence_parallel"),
        (
            MIXTRAL,
            {"long": {"sequence_parallel": 3, "context": "ulysses"}},
            "4 attention heads cannot be divided among 3",
            "long.sequence_parallel",
        ),
    ],
)
def test_of_transformers(tmp_path, told, train, message, key):
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(json.dumps({**SIZE, **told}))
    asking, silent = (recipe({"huggingface": str(tmp_path)}, **one) for one in (train, {}))
    check_possible(silent)
    with pytest.raises(UserError, match=message) as refused:
        check_possible(asking)
    assert refused.value.where == f"stages.one.train.{key}"


def test_of_headrace():
    model = {"layers": 2, "width": 64, "heads": 4, "rotary_dim": 16, "ffn": 40}
    check_possible(recipe(model, long={"sequence_parallel": 3}))  # by ring attention
    with pytest.raises(UserError, match="4 attention heads cannot be divided among 3"):
        check_possible(recipe(model, long={"sequence_parallel": 3, "context": "ulysses"}))
