"""From a params file to the recipe that says the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.cerebras.read import Params
from headrace.cerebras.schedule import pieces
from headrace.errors import UserError
from headrace.recipe.load import load_recipe
from headrace.recipe.schema import Recipe

STAGE = "train"
KEPT = 10**9  # checkpoints: all of them, as the Model Zoo 1.9 does
MOST_CUT = 6.0  # standard deviations; two in 10^9 values lie beyond
INITIALIZERS = {
    "embedding_std": "embedding_initializer",
    "hidden_std": "initializer",
    "output_std": "output_layer_initializer",
}


@dataclass(frozen=True)
class Data:
    """What the files of an input hold.

    Attributes:
        sequence_length: targets of a row.
        rows: rows of an epoch.
    """

    sequence_length: int
    rows: int


def train_recipe(
    params: Params,
    data: Data,
    done: int = 0,
    tokenizer: str | None = None,
    start: str | None = None,
    resume: bool = False,
    first_row: int = 0,
) -> Recipe:
    """The recipe that trains what a params file trains, and with ``mode: train_and_eval`` evaluates it in between.

    Args:
        params: the file.
        data: what ``train_input`` holds.
        done: steps that were made before, which ``num_steps`` comes on top of.
        tokenizer: a tokenizer's file, to show text; without one there are only ids.
        start: a checkpoint whose weights are the first ones.
        resume: whether to go on from its step, with its optimizer and in the data too.
        first_row: rows of the data to pass over.

    Raises:
        UserError: keys are missing or contradict each other.
    """
    run, batch = params.section("runconfig"), needed(params, "train_input", "batch_size")
    steps = last_step(params, data, done)
    train: dict[str, Any] = {
        "batch": batch,
        "micro_batch": params.section("train_input").get("micro_batch_size"),
        "steps": steps,
        "optimizer": _optimizer(params),
        "schedule": {"shape": "pieces", "pieces": pieces(params, steps)},
        "loss": _loss(params),
        "precision": _precision(params),
        "checkpoint_every": run.get("checkpoint_steps") or steps,
        "initial_checkpoint": run.get("save_initial_checkpoint", False),
        "keep": run.get("max_checkpoints", KEPT),
        "log_every": run.get("log_steps", 1),
        "samples": {"tokens": 0},
    }
    held_out = []
    if run.get("mode") == "train_and_eval":
        held_out = sequence(params, "eval_input")
        often = run.get("eval_frequency", max(1, data.rows // batch))
        train["held_out"] = {"every": often, "rows": eval_rows(params)}
    stage: dict[str, Any] = {
        "name": STAGE,
        "sequence_length": data.sequence_length,
        "sequence": sequence(params, "train_input"),
        "epochs": max(1, -(-(steps * batch + first_row) // data.rows)),
        "first_row": first_row,
        "train": train,
    }
    if start is not None:
        stage |= {"start": start, "resume": resume}
    return _recipe(params, "train_input", stage, tokenizer, held_out)


def eval_recipe(params: Params, data: Data, tokenizer: str | None = None) -> Recipe:
    """The recipe whose only stage has the rows of ``eval_input``; it trains nothing.

    Args:
        params: the file.
        data: what ``eval_input`` holds.
        tokenizer: a tokenizer's file, for bits per byte.
    """
    stage = {
        "name": "eval",
        "sequence_length": data.sequence_length,
        "sequence": sequence(params, "eval_input"),
        "train": {"batch": needed(params, "eval_input", "batch_size"), "precision": _precision(params)},
    }
    return _recipe(params, "eval_input", stage, tokenizer, [])


def eval_rows(params: Params) -> int | None:
    """How many rows of ``eval_input`` to evaluate on; None for all."""
    steps = params.section("runconfig").get("eval_steps")
    return None if steps is None else steps * int(needed(params, "eval_input", "batch_size"))


def _recipe(
    params: Params, section: str, stage: dict[str, Any], tokenizer: str | None, held_out: list[dict[str, Any]]
) -> Recipe:
    model = _model(params)
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", params.path.stem).strip("-_")[:64] or "params"
    sections = {
        "name": name,
        "seed": params.section(section).get("shuffle_seed", 0),
        "tokenizer": {"ids": model["vocab_size"]} if tokenizer is None else {"file": tokenizer},
        "stages": [stage],
        "held_out": held_out,
        "model": model,
    }
    try:
        return load_recipe(sections)
    except UserError as error:
        where = f"{params.path}, as a recipe's {error.where}"
        raise UserError(error.what, where, error.fix, error.found) from None


def needed(params: Params, section: str, key: str) -> Any:
    """A value that must be given.

    Raises:
        UserError: it is not.
    """
    value = params.section(section).get(key)
    if value is None:
        raise params.wrong(f"There is no {key}.", section, f"Add `{key}:` to {section}.")
    return value


def last_step(params: Params, data: Data, done: int) -> int:
    """The number of the last step.

    Raises:
        UserError: nothing, or two things, say when to stop; or an epoch has no whole batch.
    """
    run = params.section("runconfig")
    if "num_steps" in run and "num_epochs" in run:
        raise params.wrong("num_steps and num_epochs both say when to stop.", "runconfig", "Keep one of them.")
    limits = [run["max_steps"]] if "max_steps" in run else []
    if "num_steps" in run:
        limits.append(done + run["num_steps"])
    if "num_epochs" in run:
        batch = needed(params, "train_input", "batch_size")
        if data.rows < batch:
            what, fix = f"An epoch has {data.rows:,} rows, a batch {batch:,}.", "Give smaller batches."
            raise params.wrong(what, "train_input.batch_size", fix)
        limits.append(run["num_epochs"] * (data.rows // batch))
    if not limits:
        raise params.wrong("Nothing says when to stop.", "runconfig", "Add `max_steps:`, or --max_steps.")
    return min(limits)


def sequence(params: Params, section: str) -> list[dict[str, Any]]:
    """The rows of an input as a recipe's ``sequence``.

    Raises:
        UserError: it has no folders, or both ways to name them.
    """
    inputs = params.section(section)
    mixture, folders = inputs.get("mixture"), inputs.get("data_dir")
    if (mixture is None) == (folders is None):
        both = "both data_dir and mixture" if mixture else "no data"
        raise params.wrong(f"{section} names {both}.", section, "Give `data_dir:` or `mixture:`.")
    if mixture is None:
        return [_rows(params, inputs, section)]
    if "data_subset" in inputs:
        raise params.wrong("A mixture has no data_subset of its own.", section, "Give one to each of its entries.")
    out = []
    for i, entry in enumerate(mixture):
        place = f"{section}.mixture.{i}"
        for key in ("data_dir", "weight"):
            if entry.get(key) is None:
                raise params.wrong(f"An entry of the mixture has no {key}.", place, f"Add `{key}:`.")
        out.append({**_rows(params, entry, place), "weight": entry["weight"]})
    return out


def _rows(params: Params, entry: Mapping[str, Any], place: str) -> dict[str, Any]:
    rows: dict[str, Any] = {"path": entry["data_dir"]}
    if "data_subset" in entry:
        share = r"\s*(\d+\.?\d*|\.\d+)\s*"
        parts = [re.fullmatch(f"{share}-{share}", part) for part in entry["data_subset"].split(",")]
        if None in parts:
            what = f"{entry['data_subset']!r} is no subset."
            raise params.wrong(what, f"{place}.data_subset", "Write it like 0.0-0.1 or 0-0.1,0.5-0.6.")
        rows["slice"] = [[float(part[1]), float(part[2])] for part in parts if part is not None]
    return rows


def _model(params: Params) -> dict[str, Any]:
    model, adjust = params.section("model"), params.section("optimizer").get("adjust_learning_rate") or {}
    kind = model.get("position_embedding_type", "learned") if model.get("use_position_embedding", True) else None
    activation, factor = model.get("nonlinearity", "gelu"), model.get("pos_scaling_factor", 1)
    length = model.get("max_position_embeddings", 1024)
    return {
        "preset": None,
        "vocab_size": needed(params, "model", "vocab_size"),
        "layers": needed(params, "model", "num_hidden_layers"),
        "width": needed(params, "model", "hidden_size"),
        "heads": needed(params, "model", "num_heads"),
        "kv_heads": _kv_heads(params),
        "ffn": needed(params, "model", "filter_size"),
        "norm": "rmsnorm" if model.get("use_rms_norm") else model.get("norm_type", "layernorm"),
        "norm_eps": model.get("layer_norm_epsilon", 1e-5),
        "activation": {"gelu_new": "gelu_tanh"}.get(activation, activation),
        "attention_bias": _attention_bias(params),
        "ffn_bias": model.get("use_ffn_bias", True),
        "output_bias": model.get("use_bias_in_output", False),
        "tied": model.get("share_embedding_weights", True),
        "parallel_residual": _parallel(params),
        "learned_positions": length if kind == "learned" else None,
        "rotary_dim": model.get("rotary_dim") if kind == "rotary" else 0,
        "rotary_base": model.get("rope_theta", 10000.0),
        "rotary_scaling": None if factor == 1 else {"kind": "linear", "factor": factor},
        "rotary_pairs": "interleaved",
        "init": _initialisation(params),
        "mup": {
            "embedding_multiplier": model.get("embeddings_scale", 1.0),
            "logit_multiplier": model.get("output_logits_scale", 1.0),
            "attention": "d" if model.get("scale_qk_dot_by_d", False) else "sqrt_d",
            "hidden_learning_rate": adjust.get("decoder_kernel", 1.0),
        },
    }


def _kv_heads(params: Params) -> int | None:
    model = params.section("model")
    groups = (model.get("extra_attention_params") or {}).get("num_kv_groups")
    if model.get("attention_module") == "multiquery_attention":
        return groups or 1
    if groups is not None:
        what, place = "num_kv_groups is of multiquery_attention.", "model.extra_attention_params"
        raise params.wrong(what, place, "Add `attention_module: multiquery_attention`, or remove it.")
    return None


def _parallel(params: Params) -> bool:
    model = params.section("model")
    untied = model.get("use_untied_layer_norm", False)
    if "residual_dropout_rate" in model and not untied:
        what = "residual_dropout_rate tells that this is a GPT-J, whose blocks have one norm; headrace's have two."
        fix = "Add `use_untied_layer_norm: true` for GPT-NeoX's blocks, or remove residual_dropout_rate for GPT-2's."
        raise params.wrong(what, "model.use_untied_layer_norm", fix)
    return bool(untied)


def _attention_bias(params: Params) -> bool | str:
    model = params.section("model")
    inner, outer = (model.get(f"use_{name}_bias_in_attention", True) for name in ("projection", "ffn"))
    if outer and not inner:
        what = "Attention's output has a bias, its queries, keys and values have none."
        fix = "Set it to false, or use_projection_bias_in_attention to true."
        raise params.wrong(what, "model.use_ffn_bias_in_attention", fix)
    return "qkv" if inner and not outer else bool(inner)


def _initialisation(params: Params) -> dict[str, Any]:
    model = params.section("model")
    drawn = {key: _drawn(params, name) for key, name in INITIALIZERS.items() if name in model}
    families = {(distribution, cut) for distribution, _, cut in drawn.values()}
    if len(families) > 1:
        told = ", ".join(f"{name} at {cut:g} std" for name, cut in sorted(families))
        what = f"The initializers are of several families: {told}."
        raise params.wrong(what, "model.initializer", "Cut all at the same multiple of std.")
    # GPT-2's, which the Model Zoo falls back on.
    distribution, cut = families.pop() if families else ("normal", 0.0)
    out = dict.fromkeys(("embedding_std", "hidden_std"), model.get("initializer_range", 0.02))
    out |= {key: std for key, (_, std, _) in drawn.items()}
    family = {"distribution": distribution} if distribution == "normal" else {"cut": cut}
    return out | family | {"seed": model.get("weight_initialization_seed")}


def _drawn(params: Params, name: str) -> tuple[str, float, float]:
    """The distribution of an initializer, its standard deviation, and at how many of these it is cut."""
    section, place = params.section("model")[name], f"model.{name}"
    distribution, std = section.get("name"), section.get("std", 0.05)
    if distribution is None:
        raise params.wrong("The initializer has no name.", place, "Add `name: truncated_normal`.")
    if distribution == "normal":
        return "normal", std, 0.0
    low, high = section.get("a", -2 * std), section.get("b", 2 * std)
    if low >= 0 or low != -high:
        what = f"It is cut at {low:g} and {high:g}."
        raise params.wrong(what, place, "Cut at -x and x: headrace cuts both sides alike.")
    cut = round(high / std, 6)
    return ("normal", std, 0.0) if cut > MOST_CUT else ("truncated_normal", std, cut)


def _optimizer(params: Params) -> dict[str, Any]:
    optimizer = params.section("optimizer")
    if "betas" in optimizer and {"beta1", "beta2"} & set(optimizer):
        raise params.wrong("betas are given twice.", "optimizer.betas", "Remove it, or beta1 and beta2.")
    return {
        "betas": optimizer.get("betas", [optimizer.get("beta1", 0.9), optimizer.get("beta2", 0.999)]),
        "eps": optimizer.get("eps", 1e-6),
        "weight_decay": optimizer.get("weight_decay_rate", 0.0),
        "clip": optimizer.get("max_gradient_norm") or None,
    }


def _loss(params: Params) -> dict[str, Any]:
    model = params.section("model")
    scaling, weight = model.get("loss_scaling", "num_tokens"), model.get("loss_weight", 1.0)
    if scaling == "num_tokens" and weight != 1:
        what = (
            f"loss_scaling is num_tokens and loss_weight {weight:g}: releases of the Model Zoo take one or the other."
        )
        raise params.wrong(what, "model.loss_weight", "Add loss_scaling: batch_size, or remove loss_weight.")
    return {"per": "row" if scaling == "batch_size" else "token", "weight": weight}


def _precision(params: Params) -> str:
    return "bf16" if params.section("model").get("mixed_precision", False) else "fp32"
