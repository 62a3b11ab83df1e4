"""Every key of the table: honoured, noted, refused or unknown, and hostile files."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace.cerebras.document import document
from headrace.cerebras.keys import SECTIONS, Key
from headrace.cerebras.read import Params, read
from headrace.cerebras.translate import Data, train_recipe
from headrace.errors import UserError
from headrace.recipe.load import dump

ALL = [(section, key) for section, keys in SECTIONS.items() for key in keys if not key.same]
OTHER_NAMES = [(section, key) for section, keys in SECTIONS.items() for key in keys if key.same]
DATA = Data(16, 1000)
DRAWN = {"name": "truncated_normal", "mean": 0.0, "std": 0.02, "a": -0.04, "b": 0.04}
BASE: dict[str, Any] = {
    "train_input": {"batch_size": 4, "mixture": [{"data_dir": "a", "weight": 1.0}]},
    "eval_input": {"batch_size": 2, "data_dir": "b"},
    "model": {
        "vocab_size": 96,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_heads": 2,
        "filter_size": 24,
        "position_embedding_type": "rotary",
        "max_position_embeddings": 16,
        "embedding_initializer": dict(DRAWN),
        "initializer": dict(DRAWN),
        "output_layer_initializer": dict(DRAWN),
        "loss_scaling": "batch_size",
        "mixed_precision": True,
    },
    "optimizer": {
        "optimizer_type": "AdamW",
        "learning_rate": [
            {"scheduler": "Linear", "initial_learning_rate": 0.0, "end_learning_rate": 0.1, "steps": 5},
            {"scheduler": "Constant", "learning_rate": 0.1},
        ],
        "adjust_learning_rate": {"decoder_kernel": 0.5},
    },
    "runconfig": {"max_steps": 100},
    "cerebras": {"save_iter_state_path": "state"},
}
# Where a section of the table is in the file; the first scheduler stands for all.
PLACES: dict[str, tuple[str | int, ...]] = {
    "": (),
    "input": ("train_input",),
    "mixture": ("train_input", "mixture", 0),
    "model": ("model",),
    "attention": ("model", "extra_attention_params"),
    "initializer": ("model", "initializer"),
    "optimizer": ("optimizer",),
    "scheduler": ("optimizer", "learning_rate", 0),
    "adjust": ("optimizer", "adjust_learning_rate"),
    "runconfig": ("runconfig",),
    "cerebras": ("cerebras",),
}
# Another value for each key that a recipe honours; a tuple also changes what must go with it.
CHANGED: dict[tuple[str, str], Any] = {
    ("input", "batch_size"): 8,
    ("input", "micro_batch_size"): 2,
    ("input", "data_dir"): ({"data_dir": ["x", "y"], "mixture": None}),
    ("input", "data_subset"): ({"data_dir": "a", "data_subset": "0.0-0.1,0.5-0.75", "mixture": None}),
    ("input", "mixture"): [{"data_dir": "c", "weight": 2}],
    ("input", "shuffle_seed"): 7,
    ("mixture", "data_dir"): ["a", "b"],
    ("mixture", "weight"): 3,
    ("mixture", "data_subset"): "0-0.1",
    ("model", "vocab_size"): 100,
    ("model", "hidden_size"): 32,
    ("model", "num_hidden_layers"): 3,
    ("model", "num_heads"): 4,
    ("model", "filter_size"): 25,
    ("model", "nonlinearity"): "swiglu",
    ("model", "max_position_embeddings"): ({"position_embedding_type": "learned", "max_position_embeddings": 99}),
    ("model", "use_position_embedding"): False,
    ("model", "position_embedding_type"): "learned",
    ("model", "rotary_dim"): 4,
    ("model", "share_embedding_weights"): False,
    ("model", "layer_norm_epsilon"): "1e-6",
    ("model", "use_projection_bias_in_attention"): (
        {"use_projection_bias_in_attention": False, "use_ffn_bias_in_attention": False}
    ),
    ("model", "use_ffn_bias_in_attention"): False,
    ("model", "use_ffn_bias"): False,
    ("model", "use_bias_in_output"): True,
    ("model", "embedding_initializer"): {**DRAWN, "std": 0.01, "a": -0.02, "b": 0.02},
    ("model", "initializer"): {**DRAWN, "std": 0.01, "a": -0.02, "b": 0.02},
    ("model", "output_layer_initializer"): {**DRAWN, "std": 0.01, "a": -0.02, "b": 0.02},
    ("model", "weight_initialization_seed"): 9,
    ("model", "embeddings_scale"): 14.6,
    ("model", "output_logits_scale"): 0.5,
    ("model", "scale_qk_dot_by_d"): True,
    ("model", "loss_scaling"): "num_tokens",
    ("model", "loss_weight"): 0.5,
    ("model", "mixed_precision"): False,
    ("model", "attention_module"): "multiquery_attention",
    ("model", "extra_attention_params"): (
        {"attention_module": "multiquery_attention", "extra_attention_params": {"num_kv_groups": 2}}
    ),
    ("model", "norm_type"): "rmsnorm",
    ("model", "use_rms_norm"): True,
    ("model", "use_untied_layer_norm"): True,
    ("model", "residual_dropout_rate"): ({"residual_dropout_rate": 0, "use_untied_layer_norm": True}),
    ("model", "rope_theta"): 1e6,
    ("model", "pos_scaling_factor"): 2,
    ("model", "initializer_range"): (
        dict.fromkeys(("initializer", "embedding_initializer", "output_layer_initializer")) | {"initializer_range": 0.1}
    ),
    ("attention", "num_kv_groups"): 2,
    ("initializer", "name"): "normal",
    ("initializer", "std"): ({"std": 0.01, "a": -0.02, "b": 0.02}),
    ("initializer", "a"): ({"a": -0.02, "b": 0.02}),
    ("initializer", "b"): ({"a": -0.02, "b": 0.02}),
    ("optimizer", "beta1"): 0.8,
    ("optimizer", "beta2"): 0.99,
    ("optimizer", "betas"): [0.8, 0.9],
    ("optimizer", "eps"): "1e-9",
    ("optimizer", "weight_decay_rate"): 0.2,
    ("optimizer", "max_gradient_norm"): 2.0,
    ("optimizer", "learning_rate"): 0.3,
    ("optimizer", "adjust_learning_rate"): {"decoder_kernel": 0.25},
    ("scheduler", "scheduler"): "CosineDecay",
    ("scheduler", "learning_rate"): ({"scheduler": "Constant", "learning_rate": 0.7}),
    ("scheduler", "initial_learning_rate"): 0.05,
    ("scheduler", "end_learning_rate"): 0.05,
    ("scheduler", "steps"): 7,
    ("scheduler", "decay_rate"): (
        {"scheduler": "Exponential", "initial_learning_rate": 0.1, "decay_rate": 0.5, "steps": 5}
    ),
    ("scheduler", "values"): ({"scheduler": "PiecewiseConstant", "values": [0.1, 0.2], "boundaries": [3], "steps": 6}),
    ("scheduler", "boundaries"): (
        {"scheduler": "PiecewiseConstant", "values": [0.1, 0.2], "boundaries": [4], "steps": 6}
    ),
    ("adjust", "decoder_kernel"): 0.125,
    ("runconfig", "max_steps"): 50,
    ("runconfig", "num_steps"): 40,
    ("runconfig", "num_epochs"): ({"max_steps": None, "num_epochs": 2}),
    ("runconfig", "checkpoint_steps"): 10,
    ("runconfig", "max_checkpoints"): 3,
    ("runconfig", "log_steps"): 5,
    ("runconfig", "save_initial_checkpoint"): True,
}
# Of the several values of this key none has an effect.
ALIKE = {("model", "fp16_type")}
# How a run is launched: tests/test_params.py.
LAUNCH = {
    "mode",
    "model_dir",
    "checkpoint_path",
    "is_pretrained_checkpoint",
    "autoload_last_checkpoint",
    "eval_steps",
    "eval_frequency",
    "max_sequence_length",
    "save_iter_state_path",
}
# Nine lists of nine of the list before.
BOMB = "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10))
SAMPLES = {
    "count": 3,
    "whole": 3,
    "positive": 0.5,
    "number": 0.5,
    "signed": -0.5,
    "flag": True,
    "text": "x",
    "texts": ["x"],
    "numbers": [1, 2],
    "anything": "dynamic",
}


def changed(section: str, values: dict[str, Any]) -> dict[str, Any]:
    """The base with keys of a section set; those that are None are removed."""
    params = copy.deepcopy(BASE)
    at: Any = params
    for part in PLACES[section]:
        at = at[part] if isinstance(part, int) else at.setdefault(part, {})
    if section == "attention":
        params["model"]["attention_module"] = "multiquery_attention"
    at.update(values)
    for key in [key for key, value in values.items() if value is None]:
        del at[key]
    return params


def opened(tmp_path: Path, params: Any) -> Params:
    path = tmp_path / "params.yaml"
    path.write_text(params if isinstance(params, str) else yaml.safe_dump(params))
    return read(path, {})


def refused(tmp_path: Path, params: Any) -> str:
    with pytest.raises(UserError) as error:
        train_recipe(opened(tmp_path, params), DATA)
    return str(error.value)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return dump(train_recipe(opened(tmp_path_factory.mktemp("plain"), BASE), DATA))


def named(use: str) -> list[Any]:
    return [pytest.param(s, key, id=f"{s}.{key.name}") for s, key in ALL if key.use == use]


@pytest.mark.parametrize(("section", "key"), named("honoured"))
def test_what_is_honoured_changes_the_recipe_or_can_have_one_value_alone(tmp_path, section, key: Key, plain):
    if section == "" or key.name in LAUNCH:
        return
    given = CHANGED.get((section, key.name))
    if given is not None:
        values = given if isinstance(given, dict) and key.name in given else {key.name: given}
        others = {"embedding_initializer": {}, "output_layer_initializer": {}} if section == "initializer" else {}
        params = changed(section, values)
        for name in others:
            params["model"][name] |= values
        recipe = dump(train_recipe(opened(tmp_path, params), DATA))
        assert recipe != plain
        if (section, key.name) == ("scheduler", "values"):
            assert "0.2" in recipe
    else:
        assert len(key.only) == 1 or (section, key.name) in ALIKE, "a key with several values must show what it changes"
        for value in key.only:
            assert dump(train_recipe(opened(tmp_path, changed(section, {key.name: value})), DATA)) == plain
    if key.only:
        other = not key.only[0] if key.kind == "flag" else "Other" if key.kind == "text" else 0.25
        said = refused(tmp_path, changed(section, {key.name: other}))
        assert key.otherwise in said
        assert ".".join(map(str, (*PLACES[section], key.name))) in said
        assert "line " in said


@pytest.mark.parametrize(("section", "key"), named("noted") + named("hardware"))
def test_what_is_noted_changes_nothing_and_is_told(tmp_path, section, key: Key, plain):
    params = opened(tmp_path, changed(section, {key.name: SAMPLES[key.kind]}))
    [note] = [note for note in params.notes if f".{key.name} " in f".{note}"]
    assert key.meaning in note
    assert ("Cerebras' hardware" in note) == (key.use == "hardware")
    assert dump(train_recipe(params, DATA)) == plain


@pytest.mark.parametrize(("section", "key"), named("refused"))
def test_what_is_refused_says_why(tmp_path, section, key: Key, plain):
    value = not key.only[0] if key.kind == "flag" else 3
    said = refused(tmp_path, changed(section, {key.name: value}))
    assert key.meaning in said
    for value in key.only:
        assert dump(train_recipe(opened(tmp_path, changed(section, {key.name: value})), DATA)) == plain


@pytest.mark.parametrize(("section", "key"), [pytest.param(s, key, id=f"{s}.{key.name}") for s, key in ALL])
def test_unknown_keys_are_refused_with_a_suggestion_and_values_of_another_kind_are_too(tmp_path, section, key: Key):
    if len(key.name) > 1:
        said = refused(tmp_path, changed(section, {f"{key.name[:-1]}Q": 1}))
        assert "unknown key" in said.lower()
        assert "Did you mean" in said or "The keys here are" in said
    if key.kind != "anything":
        wrong = {"a": 1} if key.kind != "section" else "x"
        said = refused(tmp_path, changed(section, {key.name: wrong}))
        assert key.name in said


@pytest.mark.parametrize(("section", "key"), [pytest.param(s, key, id=f"{s}.{key.name}") for s, key in OTHER_NAMES])
def test_other_names_say_the_same(tmp_path, section, key: Key):
    value = CHANGED.get((section, key.same), True)
    known, other = (
        dump(train_recipe(opened(tmp_path, changed(section, {key.same: None, name: value})), DATA))
        for name in (key.same, key.name)
    )
    assert known == other
    both = changed(section, {key.same: value, key.name: value})
    assert dump(train_recipe(opened(tmp_path, both), DATA)) == known
    wrong = changed(section, {key.same: value, key.name: not value if value is True else value + 1})
    assert f"{key.same} is given twice" in refused(tmp_path, wrong).lower()


def test_a_key_in_another_section_is_told_where_it_belongs(tmp_path):
    assert "It belongs in optimizer" in refused(tmp_path, changed("model", {"max_gradient_norm": 1.0}))


def test_null_is_absence(tmp_path, plain):
    params = changed("runconfig", {})
    params["runconfig"]["num_epochs"] = None
    params["model"]["loss_weight"] = None
    assert dump(train_recipe(opened(tmp_path, params), DATA)) == plain


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("input", {"mixture": None}, "names no data"),
        ("input", {"data_dir": "a"}, "both data_dir and mixture"),
        ("input", {"data_subset": "0-0.5"}, "no data_subset of its own"),
        ("input", {"batch_size": None}, "no batch_size"),
        ("mixture", {"weight": None}, "no weight"),
        ("mixture", {"data_subset": "half"}, "is no subset"),
        ("mixture", {"data_subset": "0.5.1-0.7"}, "is no subset"),
        ("mixture", {"data_subset": "0.7-0.5"}, "slice"),
        ("mixture", {"data_subset": "0-0.5,0.4-0.6"}, "overlap"),
        ("model", {"hidden_size": 15}, "not a multiple"),
        ("model", {"vocab_size": None}, "no vocab_size"),
        ("model", {"loss_scaling": "num_tokens", "loss_weight": 0.5}, "releases of the Model Zoo"),
        ("model", {"use_projection_bias_in_attention": False}, "output has a bias"),
        ("initializer", {"a": -0.02}, "both sides alike"),
        ("initializer", {"a": -0.02, "b": 0.02}, "several families"),
        ("optimizer", {"learning_rate": None}, "no learning rate"),
        ("optimizer", {"learning_rate": []}, "is not a number, a scheduler"),
        ("scheduler", {"scheduler": None}, "has no name"),
        ("scheduler", {"steps": None}, "how many steps"),
        ("scheduler", {"decay_steps": 6}, "Steps is given twice"),
        ("scheduler", {"total_iters": 6}, "Steps is given twice"),
        ("optimizer", {"betas": [0.9, 0.95], "beta2": 0.9}, "betas are given twice"),
        ("optimizer", {"betas": [0.9]}, "betas"),
        ("model", {"extra_attention_params": {"num_kv_groups": 2}}, "is of multiquery_attention"),
        ("model", {"residual_dropout_rate": 0.0}, "this is a GPT-J"),
        ("", {"trainer": {"init": {}}}, "a release with a Trainer"),
        ("scheduler", {"scheduler": "Exponential"}, "needs decay_rate"),
        ("scheduler", {"scheduler": "PiecewiseConstant", "values": [1, 2], "boundaries": [3, 2]}, "boundaries"),
        ("optimizer", {"learning_rate": -1}, "optimizer.learning_rate ("),
        (
            "optimizer",
            {
                "learning_rate": [
                    {"scheduler": "Exponential", "initial_learning_rate": 1, "decay_rate": 9e9, "steps": 1}
                ]
            },
            "grows beyond all numbers",
        ),
        ("runconfig", {"max_steps": None}, "Nothing says when to stop"),
        ("runconfig", {"num_steps": 3, "num_epochs": 2}, "both say when to stop"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(tmp_path, section, values, words):
    assert words in refused(tmp_path, changed(section, values))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "mapping of sections"),
        ("[1, 2]", "mapping of sections"),
        ("model: {a: &x [*x]}", "alias"),
        ("model: " + "[" * 100, "nest deeper"),
        (BOMB, "expands"),
        ("model: {vocab_size: 1, vocab_size: 2}", "appears twice"),
        ("model: !!python/object/apply:os.system ['true']", "not valid YAML"),
        ("model: {vocab_size: 1" + "0" * 5000 + "}", "not valid YAML"),
        ("model: {vocab_size: 1" + "0" * 4000 + "}", "is not a whole number"),
        ("model: {vocab_size: .nan}", "is not a whole number"),
        ("model: {embeddings_scale: .inf}", "is not a number above 0"),
        ("model: {vocab_size: true}", "is not a whole number"),
        ("model: {1: 2, ? [a] : 3}", ""),
        ("runconfig: {mode: rm -rf}", "Use 'train', 'eval', 'train_and_eval', 'eval_all'"),
        ("model: \x00", "not valid YAML"),
        ("train_input: {mixture: [null]}", "not a section"),
        ("train_input: {mixture: {data_dir: a}}", "not a list of sections"),
        ("train_input: {data_dir: ['a', 3]}", "not text or a list"),
    ],
)
def test_hostile_files_end_in_one_message(tmp_path, text, words):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read(path, {})
    assert words in str(error.value)
    assert len(str(error.value)) < 4000


def test_many_mistakes_are_told_at_once_with_their_lines(tmp_path):
    text = "model:\n  hiden_size: 3\n  vocab_size: -1\noptimizer:\n  beta3: 1\n"
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read(path, {})
    said = str(error.value)
    assert "3 mistakes" in said
    assert "did you mean 'hidden_size'?" in said
    assert all(f"line {n})" in said for n in (2, 3, 5))


def test_flags_go_before_the_file_and_overrides_before_both(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(BASE))
    params = read(path, {"runconfig.max_steps": 7, "runconfig.mode": None}, ["train_input.mixture.0.weight=3"])
    assert params.section("runconfig")["max_steps"] == 7
    assert params.section("train_input")["mixture"][0]["weight"] == 3
    assert read(path, {"runconfig.max_steps": 7}, ["runconfig.max_steps=8"]).section("runconfig")["max_steps"] == 8


def test_the_page_is_that_of_the_table():
    page = Path(__file__).parents[2] / "docs" / "params.md"
    assert page.read_text(encoding="utf-8") == document()
