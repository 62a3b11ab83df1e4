"""Files of the kinds that the Model Zoo has for other models than CrystalCoder, written small; and wrong data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from headrace.cerebras.read import read
from headrace.cerebras.translate import Data, train_recipe
from headrace.cli.app import app
from headrace.errors import UserError
from headrace.model.presets import resolve

pytestmark = pytest.mark.filterwarnings("ignore")

L = 16
WARM = {"scheduler": "Linear", "initial_learning_rate": 0.0, "end_learning_rate": 0.006, "total_iters": 3}
# What the files of each family have in common; then what each adds or changes.
SHAPE = """
    vocab_size: 96
    hidden_size: 16
    num_hidden_layers: 2
    num_heads: 4
    filter_size: 24
    max_position_embeddings: 16
    attention_type: "scaled_dot_product"
    attention_dropout_rate: 0.0
    dropout_rate: 0.0
    layer_norm_epsilon: 1.0e-5
    mixed_precision: True
"""
FILES = {
    "gpt2": """
model:
    position_embedding_type: "learned"
    share_embedding_weights: True
    loss_scaling: "num_tokens"
    loss_weight: 1.0
    use_projection_bias_in_attention: True
    use_ffn_bias_in_attention: True
    nonlinearity: "gelu"
    use_ffn_bias: True
    use_bias_in_output: False
optimizer:
    optimizer_type: "adamw"
    betas: [0.9, 0.95]
    eps: 1.0e-8
    weight_decay: 0.01
    initial_loss_scale: 2147483648.0
    max_loss_scale: 2147483648.0
runconfig: {save_initial_checkpoint: True, seed: 1, keep_checkpoint_max: 2}
""",
    "gpt3-mup": """
model:
    use_position_embedding: True
    position_embedding_type: "learned"
    share_embedding_weights: True
    nonlinearity: "gelu"
    embedding_initializer: {mean: 0.0, name: truncated_normal, std: 0.02, a: -0.04, b: 0.04}
    initializer: {mean: 0.0, name: truncated_normal, std: 0.02, a: -0.04, b: 0.04}
    output_layer_initializer: {mean: 0.0, name: truncated_normal, std: 0.0045, a: -0.009, b: 0.009}
    loss_scaling: "batch_size"
    loss_weight: 0.0625
    scale_qk_dot_by_d: True
    output_logits_scale: 0.25
    embeddings_scale: 10
    use_bfloat16: True
optimizer:
    optimizer_type: "AdamW"
    correct_bias: True
    weight_decay_rate: 0.1
    adjust_learning_rate: {decoder_kernel: 0.25}
runconfig: {save_losses: True, precision_opt_level: 0, use_cs_grad_accum: True, enable_distributed: False}
""",
    "neox": """
model:
    position_embedding_type: "rotary"
    share_embedding_weights: False
    embedding_dropout_rate: 0.0
    residual_dropout_rate: 0.0
    use_untied_layer_norm: True
    nonlinearity: "gelu"
    rotary_dim: 2
    use_bias_in_output: False
    initializer_range: 0.02
    loss_scaling: "batch_size"
    loss_weight: 0.0625
    embedding_initializer: {name: "truncated_normal", mean: 0.0, std: 0.0228}
    initializer: {name: "truncated_normal", mean: 0.0, std: 0.0228}
    output_layer_initializer: {name: "truncated_normal", mean: 0.0, std: 0.006}
    precision_opt_level: 1
optimizer: {optimizer_type: "adamw", beta1: 0.9, beta2: 0.999, use_bias_correction: True, max_loss_scale: 4290774016.0}
""",
    "llama": """
model:
    position_embedding_type: "rotary"
    rotary_dim: 4
    rope_theta: 1000000
    share_embedding_weights: False
    norm_type: "rmsnorm"
    attention_module: "multiquery_attention"
    extra_attention_params: {num_kv_groups: 2}
    use_projection_bias_in_attention: False
    use_ffn_bias_in_attention: False
    nonlinearity: "swiglu"
    use_ffn_bias: False
    use_bias_in_output: False
    fp16_type: "cbfloat16"
optimizer: {optimizer_type: "AdamW", disable_lr_steps_reset: False, loss_scaling_factor: "dynamic"}
runconfig: {show_debug_metrics: False, save_losses: True}
""",
}
EXPECTED: dict[str, dict[str, Any]] = {
    "gpt2": {"norm": "layernorm", "learned_positions": 16, "rotary_dim": 0, "tied": True, "attention_bias": True},
    "gpt3-mup": {"learned_positions": 16, "tied": True, "activation": "gelu"},
    "neox": {"parallel_residual": True, "rotary_dim": 2, "tied": False, "ffn_bias": True, "norm": "layernorm"},
    "llama": {"norm": "rmsnorm", "kv_heads": 2, "rotary_base": 1e6, "attention_bias": False, "activation": "swiglu"},
}


def parts(name: str, data: str) -> dict[str, Any]:
    """A file, with what all have."""
    params = yaml.safe_load(FILES[name])
    params["model"] |= yaml.safe_load(SHAPE)
    inputs = {"data_processor": "GptHDF5MapDataProcessor", "data_dir": data, "batch_size": 4, "num_workers": 8}
    params |= {"train_input": {**inputs, "shuffle_seed": 1}, "eval_input": inputs}
    decay = {"scheduler": "CosineDecay", "initial_learning_rate": 0.006, "end_learning_rate": 0.0006, "decay_steps": 9}
    params["optimizer"] |= {"max_gradient_norm": 1.0, "learning_rate": [WARM, decay]}
    params.setdefault("runconfig", {}).update(max_steps=4, log_steps=1, checkpoint_steps=1, eval_steps=2)
    return params


def written(folder: Path, params: dict[str, Any]) -> Path:
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(params))
    return path


def stored(folder: Path, data: np.ndarray, name: str = "a.h5") -> str:
    folder.mkdir(exist_ok=True)
    with h5py.File(folder / name, "w") as file:
        file.create_dataset("data", data=data)
    return str(folder)


def rows(n: int = 20, length: int = L) -> np.ndarray:
    tokens = (np.arange(n)[:, None] * 7 + np.arange(length + 1)[None] * 3) % 96
    return np.stack([tokens[:, :-1], np.ones((n, length)), tokens[:, 1:]], axis=1).astype(np.int32)


def launched(path: Path, out: Path, mode: str = "train", *options: str) -> Any:
    arguments = ["train", "--params", str(path), "--mode", mode, "--model_dir", str(out), "--workers", "0", "--json"]
    return CliRunner().invoke(app, [*arguments, *options])


# Each trains for half a minute on a busy machine.
@pytest.mark.parametrize(
    "name", [next(iter(FILES)), *(pytest.param(n, marks=pytest.mark.slow) for n in list(FILES)[1:])]
)
def test_files_of_other_models_are_trained_as_they_are(tmp_path, name):
    path = written(tmp_path, parts(name, stored(tmp_path / "data", rows())))
    recipe = train_recipe(read(path, {}), Data(L, 20))
    config = resolve(recipe.model, 96)
    for key, value in EXPECTED[name].items():
        assert getattr(config, key) == value, key
    pieces = recipe.stages[0].train.schedule.pieces
    assert [(piece.start, piece.end, piece.steps) for piece in pieces] == [(0, 0.006, 3), (0.006, 0.0006, 9)]
    result = launched(path, tmp_path / "out", "train_and_eval")
    assert result.exit_code == 0, result.output
    [told] = json.loads(result.stdout)["eval"]  # an epoch has five steps
    assert (told["step"], told["rows"]) == (4, 8)


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("train_input", {"data_processor": "GptHDF5DataProcessor"}, "Use 'GptHDF5MapDataProcessor'"),
        ("train_input", {"shuffle": True}, "shuffle the files when they are made"),
        ("model", {"dropout_rate": 0.1}, "no dropout"),
        ("model", {"position_embedding_type": "alibi"}, "headrace has these two"),
        ("model", {"fp16_type": "float16"}, "bfloat16 needs no loss scaling"),
        ("model", {"norm_type": "biasless-layernorm"}, "headrace has these two"),
        ("model", {"moe_params": {"num_experts": 8}}, "one feed-forward network"),
        ("optimizer", {"optimizer_type": "sgd"}, "translates AdamW"),
        ("optimizer", {"grad_accum_steps": 4}, "rows of a whole step"),
        ("runconfig", {"steps_per_epoch": 5}, "eval_frequency"),
    ],
)
def test_what_makes_them_other_models_is_refused_with_the_reason(tmp_path, section, values, words):
    params = parts("gpt2", "data")
    params[section] |= values
    with pytest.raises(UserError, match=words):
        read(written(tmp_path, params), {})


def test_a_whole_file_of_a_later_release_is_told_what_it_is(tmp_path):
    path = written(tmp_path, {"trainer": {"init": {"model": {"name": "gpt2"}}, "fit": {}}})
    with pytest.raises(UserError, match="a release with a Trainer"):
        read(path, {})


WRONG: dict[str, tuple[Any, str]] = {
    "no rows": (rows(0), "hold no rows"),
    "two lines": (np.ones((4, 2, L), np.int32), "(N, 3, L)"),
    "floats": (np.ones((4, 3, L), np.float32), "not whole numbers"),
    "short line": (np.ones(5, np.int32), "hold no rows"),
    "beyond the vocabulary": (rows() + 96 * np.array([1, 0, 1])[None, :, None], "and the tokenizer has 96 tokens"),
    "labels of another task": (rows() + np.array([0, 0, 1])[None, :, None], "labels are not the tokens one further"),
}


@pytest.mark.parametrize("name", WRONG)
def test_rows_that_are_no_rows_are_refused(tmp_path, name):
    data, words = WRONG[name]
    path = written(tmp_path, parts("gpt2", stored(tmp_path / "data", data)))
    result = launched(path, tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert words in result.output


def test_folders_of_rows_of_several_lengths_are_refused(tmp_path):
    params = parts("gpt2", "held")
    params["train_input"]["data_dir"] = [stored(tmp_path / "a", rows()), stored(tmp_path / "b", rows(20, 8))]
    path = written(tmp_path, params)
    assert "train on 8 tokens, not on 16" in launched(path, tmp_path / "out").output
    params["train_input"] |= {"data_dir": str(tmp_path / "a"), "max_sequence_length": 8}
    written(tmp_path, params)
    assert "train on 16 tokens, not on 8" in launched(path, tmp_path / "out").output
    stored(tmp_path / "a", rows(20, 8), "b.h5")
    result = launched(path, tmp_path / "out")
    assert result.exit_code == 2
    assert "8 tokens" in result.output


def test_a_line_of_tokens_is_cut_into_rows_as_long_as_the_model_takes(tmp_path):
    path = written(tmp_path, parts("gpt2", stored(tmp_path / "data", np.arange(500, dtype=np.int32) % 96)))
    assert launched(path, tmp_path / "out", "train", "--max_steps", "1").exit_code == 0


def test_mixtures_without_an_epoch_and_steps_without_room_are_refused(tmp_path):
    params = parts("gpt2", stored(tmp_path / "data", rows()))
    written(tmp_path, params)
    result = launched(tmp_path / "params.yaml", tmp_path / "out", "train", "--max_steps", str(10**12))
    assert result.exit_code == 2
    assert "GB free" in result.output
    params["train_input"]["mixture"] = [{"data_dir": params["train_input"].pop("data_dir"), "weight": 1.0}] * 25
    written(tmp_path, params)
    assert "No folder has more than 5 %" in launched(tmp_path / "params.yaml", tmp_path / "out").output


def test_rows_without_targets_change_nothing_and_are_reported(tmp_path):
    data = rows()
    data[:, 1] = 0
    path = written(tmp_path, parts("gpt2", stored(tmp_path / "data", data)))
    result = launched(path, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert Path(json.loads(result.stdout)["report"]).is_file()
