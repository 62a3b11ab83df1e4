"""Every key of a params file, and what becomes of it here: the one table that reading, translating and docs go by.

Sources: LLM360/crystalcoder-train, ``pretrain/params``; Cerebras Model Zoo 1.9.1, ``common/run_utils/cli_parser.py``,
``runconfig_schema.yaml``, ``gpt2/model.py``, ``gpt2/input``, ``h5_map_dataset``, ``common/pytorch``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal[
    "count",
    "whole",
    "positive",
    "number",
    "flag",
    "text",
    "texts",
    "numbers",
    "signed",
    "section",
    "sections",
    "rates",
    "anything",
]
KINDS: dict[Kind, str] = {
    "count": "a whole number of at least 1",
    "whole": "a whole number of at least 0",
    "positive": "a number above 0",
    "number": "a number of at least 0",
    "flag": "true or false",
    "text": "text",
    "texts": "text or a list of texts",
    "numbers": "a list of numbers of at least 0",
    "signed": "a number",
    "section": "a section of keys",
    "sections": "a list of sections",
    "rates": "a number, a scheduler, or a list of schedulers",
    "anything": "any value",
}


@dataclass(frozen=True)
class Key:
    """A key of a section.

    Attributes:
        name: the key.
        kind: what its value must be; null stands for the key's absence.
        use: honoured: the recipe says the same; noted: accepted, without effect here; refused: an error.
        meaning: what it does here, or why it has no effect or is refused.
        only: the values that are accepted, if not all.
        otherwise: why others are not.
        section: the section that its value is, or is a list of.
        hardware: whether it is noted because it speaks of Cerebras' machines or of its way of launching.
    """

    name: str
    kind: Kind
    use: Literal["honoured", "noted", "refused"]
    meaning: str
    only: tuple[Any, ...] = ()
    otherwise: str = ""
    section: str = ""
    hardware: bool = False


def _does(
    name: str, kind: Kind, meaning: str, only: tuple[Any, ...] = (), otherwise: str = "", section: str = ""
) -> Key:
    return Key(name, kind, "honoured", meaning, only, otherwise, section)


def _machine(name: str, kind: Kind, meaning: str) -> Key:
    return Key(name, kind, "noted", meaning, hardware=True)


def _needless(name: str, kind: Kind, meaning: str) -> Key:
    return Key(name, kind, "noted", meaning)


def _cannot(name: str, why: str, kind: Kind = "anything", only: tuple[Any, ...] = ()) -> Key:
    return Key(name, kind, "refused", why, only)


_NO_DROPOUT = "headrace's model has no dropout"

INPUT = (
    _does(
        "data_processor",
        "text",
        "HDF5 of three lines a row, read in its order",
        ("GptHDF5MapDataProcessor",),
        "its rows come in an order that depends on processes, or from other files",
    ),
    _does("batch_size", "count", "rows of a step, over all machines"),
    _does("micro_batch_size", "count", "rows of a forward pass; gradients add up"),
    _does("data_dir", "texts", "folders of HDF5 files, whose rows follow one another"),
    _does("data_subset", "text", "parts of the rows as shares, such as 0.0-0.1,0.5-0.6"),
    _does(
        "mixture",
        "sections",
        "folders mixed by weight, interleaved in an order drawn from shuffle_seed",
        section="mixture",
    ),
    _does("max_sequence_length", "count", "length of a row, for files that are one line of tokens"),
    _does(
        "shuffle",
        "flag",
        "rows keep their order",
        (False,),
        "headrace trains on rows in their order: shuffle the files when they are made",
    ),
    _does("shuffle_seed", "whole", "seed of a mixture's order"),
    _does(
        "sort_files",
        "flag",
        "files are read in the order of their names",
        (True,),
        "the order of a file system differs from machine to machine",
    ),
    _does("drop_last", "flag", "an epoch's rows that fill no batch begin the next epoch", (True,), "batches are whole"),
    _needless("repeat", "flag", "this processor does not look at it: max_steps decides"),
    _needless("vocab_size", "whole", "this processor does not look at it: model.vocab_size decides"),
    _needless("num_workers", "whole", "batches are read ahead by a thread, and do not depend on it"),
    _needless("prefetch_factor", "whole", "two batches are read ahead"),
    _needless("persistent_workers", "flag", "there are no workers to keep"),
    _machine("use_worker_cache", "flag", "whether data are copied to the disks of Cerebras' workers"),
    _cannot("num_samples", "an epoch is all rows; max_steps says when to stop"),
    _cannot("use_vsl", "files with five lines a row go in a recipe, with train.attention.documents", "flag", (False,)),
)

MIXTURE = (
    _does("data_dir", "texts", "folders of HDF5 files, whose rows follow one another"),
    _does("weight", "positive", "share of the mixture, relative to the other weights"),
    _does("data_subset", "text", "parts of the rows as shares"),
)

MODEL = (
    _does("vocab_size", "count", "rows of the embedding"),
    _does("hidden_size", "count", "width of the residual stream"),
    _does("num_hidden_layers", "count", "transformer blocks"),
    _does("num_heads", "count", "attention heads"),
    _does("filter_size", "count", "hidden size of the feed-forward network"),
    _does(
        "nonlinearity",
        "text",
        "activation of the feed-forward network",
        ("swiglu", "gelu", "gelu_new"),
        "headrace has these",
    ),
    _does("max_position_embeddings", "count", "length of a row, unless the data say otherwise"),
    _does("use_position_embedding", "flag", "whether positions are embedded"),
    _does(
        "position_embedding_type",
        "text",
        "rotary (interleaved pairs), or learned",
        ("rotary", "learned"),
        "headrace has these two",
    ),
    _does("rotary_dim", "whole", "rotated dimensions of a head"),
    _does("share_embedding_weights", "flag", "the output head is the embedding"),
    _does("layer_norm_epsilon", "positive", "added to a norm's variance"),
    _does("dropout_rate", "number", "none", (0,), _NO_DROPOUT),
    _does("attention_dropout_rate", "number", "none", (0,), _NO_DROPOUT),
    _does("embedding_dropout_rate", "number", "none", (0,), _NO_DROPOUT),
    _does(
        "attention_type",
        "text",
        "scale_qk_dot_by_d says what dot products are divided by",
        ("scaled_dot_product",),
        "headrace has dot products alone",
    ),
    _does("use_projection_bias_in_attention", "flag", "biases of queries, keys and values"),
    _does("use_ffn_bias_in_attention", "flag", "bias of attention's output matrix"),
    _does("use_ffn_bias", "flag", "biases of the feed-forward network"),
    _does("use_bias_in_output", "flag", "bias of the logits"),
    _does("embedding_initializer", "section", "distribution of the embedding", section="initializer"),
    _does("initializer", "section", "distribution of the matrices between embedding and output", section="initializer"),
    _does(
        "output_layer_initializer",
        "section",
        "distribution of the matrices that write to the residual stream",
        section="initializer",
    ),
    _does(
        "scale_glu_initialization",
        "flag",
        "the gate is drawn like the other matrices",
        (True,),
        "headrace draws gate and value alike",
    ),
    _does("weight_initialization_seed", "whole", "seed of the weights"),
    _does("embeddings_scale", "positive", "factor of the embedding's output (muP)"),
    _does("output_logits_scale", "positive", "factor of the logits (muP)"),
    _does("scale_qk_dot_by_d", "flag", "dot products are divided by the head's dimension, not by its root (muP)"),
    _does(
        "loss_scaling",
        "text",
        "batch_size: the summed loss is divided by rows; num_tokens: by tokens that carry loss",
        ("batch_size", "num_tokens"),
        "there are these two",
    ),
    _does("loss_weight", "positive", "factor of the loss"),
    _does("mixed_precision", "flag", "bf16, or all in float32"),
    _does(
        "use_bfloat16",
        "flag",
        "the type of mixed precision",
        (True,),
        "float16 is not supported; bfloat16 needs no loss scaling",
    ),
    _needless("attention_softmax_fp32", "flag", "softmax always has float32 statistics"),
    _needless("compute_eval_metrics", "flag", "perplexity follows from the loss that is shown"),
    _machine("attention_kernel", "text", "which of Cerebras' attention kernels runs"),
    _machine("boundary_casting", "flag", "types at the borders of Cerebras' kernels"),
    _cannot("fixed_sparse_attention", "attention is dense"),
)

INITIALIZER = (
    _does("name", "text", "its distribution", ("truncated_normal", "normal"), "headrace has these two"),
    _does("mean", "signed", "mean", (0,), "weights are drawn around 0"),
    _does("std", "positive", "standard deviation"),
    _does("a", "signed", "least value of truncated_normal, by default -2 std"),
    _does("b", "signed", "greatest value of truncated_normal, by default 2 std"),
)

OPTIMIZER = (
    _does("optimizer_type", "text", "AdamW", ("AdamW",), "headrace translates AdamW"),
    _does("beta1", "number", "decay of the running mean of the gradient"),
    _does("beta2", "number", "decay of the running mean of its square"),
    _does("eps", "positive", "added to the update's denominator"),
    _does(
        "correct_bias",
        "flag",
        "running means are corrected for beginning at 0",
        (True,),
        "headrace's AdamW always corrects",
    ),
    _does("weight_decay_rate", "number", "weight decay of matrices; never of biases and norms"),
    _does("max_gradient_norm", "number", "norm above which gradients are scaled down"),
    _cannot("max_gradient_value", "gradients are clipped by their norm", "number", (0,)),
    _does("learning_rate", "rates", "schedulers that follow one another, each for its steps", section="scheduler"),
    _does("adjust_learning_rate", "section", "factors of the learning rate by kind of weight", section="adjust"),
    _needless(
        "loss_scaling_factor", "anything", "bfloat16 has the range of float32: nothing is scaled against underflow"
    ),
    _needless("log_summaries", "flag", "the gradient's norm and the rate are always in metrics.jsonl"),
    _cannot("momentum", "AdamW has none"),
    _cannot("disable_lr_steps_reset", "each scheduler begins at its own first step", "flag", (False,)),
)

SCHEDULER = (
    _does(
        "scheduler",
        "text",
        "its curve",
        ("Constant", "Linear", "CosineDecay", "Exponential", "PiecewiseConstant"),
        "headrace has these curves",
    ),
    _does("learning_rate", "number", "the rate of Constant"),
    _does("initial_learning_rate", "number", "the rate at its first step"),
    _does("end_learning_rate", "number", "the rate after its last step"),
    _does("steps", "count", "how many steps it has"),
    _does("decay_steps", "count", "the same as steps"),
    _does("decay_rate", "positive", "what Exponential multiplies with in decay_steps"),
    _cannot("staircase", "Exponential decays at every step; write PiecewiseConstant for stairs", "flag", (False,)),
    _cannot("cycle", "a scheduler runs once", "flag", (False,)),
    _does("values", "numbers", "the rates of PiecewiseConstant"),
    _does("boundaries", "numbers", "the steps at which PiecewiseConstant changes"),
    _needless("base_lr", "number", "what the optimizer held when the file was written; the curve says all"),
)

ADJUST = (_does("decoder_kernel", "positive", "factor of the rate of hidden matrices (muP: base width / width)"),)

RUNCONFIG = (
    _does("max_steps", "count", "the last step"),
    _does("num_steps", "count", "steps from the checkpoint on, at most to max_steps"),
    _does("num_epochs", "count", "passes over the training data, instead of num_steps"),
    _does("eval_steps", "count", "batches of eval_input to evaluate; all if it is not given"),
    _does("eval_frequency", "count", "train_and_eval: which checkpoints are evaluated, by default all"),
    _does(
        "checkpoint_steps", "whole", "steps between checkpoints, all of which are kept; 0 or null: only the last step's"
    ),
    _does("save_initial_checkpoint", "flag", "a checkpoint of step 0 too"),
    _does("autoload_last_checkpoint", "flag", "go on from the newest checkpoint in model_dir"),
    _does("checkpoint_path", "text", "the checkpoint to start from"),
    _does("is_pretrained_checkpoint", "flag", "take the weights alone: step, schedule and optimizer begin anew"),
    _does("log_steps", "count", "steps between lines of metrics.jsonl"),
    _does("mode", "text", "what to do", ("train", "eval", "train_and_eval", "eval_all"), "there are these four"),
    _does("model_dir", "text", "the run folder"),
    _needless("seed", "whole", "nothing in training draws: weights and data have seeds of their own"),
    _needless("save_losses", "flag", "losses are always in metrics.jsonl"),
    _needless("logging", "text", "progress is shown on a terminal"),
    _needless("num_workers", "whole", "batches are read ahead by a thread, and do not depend on it"),
    _machine("target_device", "text", "an accelerator is used where there is one"),
    _machine("precision_opt_level", "anything", "how precise Cerebras' kernels are"),
    _machine("use_cs_grad_accum", "flag", "whether Cerebras' compiler chooses a micro-batch; see micro_batch_size"),
    _machine("num_csx", "whole", "how many CS-2 systems there are"),
    _machine("num_workers_per_csx", "whole", "data workers of a system"),
    _machine("num_act_servers", "whole", "servers of activations"),
    _machine("num_wgt_servers", "whole", "servers of weights"),
    _machine("wrk_memory_gi", "whole", "memory of a data worker"),
    _machine("use_appliance_data", "flag", "how data reach the systems"),
    _machine("compile_dir", "text", "where compiled programs lie"),
    _machine("credentials_path", "text", "how to log in to the cluster"),
    _machine("debug_args_path", "text", "switches of the compiler"),
    _machine("disable_version_check", "flag", "versions of the cluster"),
    _machine("experimental_api", "flag", "which of Cerebras' interfaces is used"),
    _machine("job_labels", "texts", "names of the job"),
    _machine("job_time_sec", "whole", "time limit of the job; SIGTERM saves and stops"),
    _machine("mgmt_address", "text", "where the cluster is"),
    _machine("mgmt_namespace", "text", "the cluster's release"),
    _machine("mount_dirs", "texts", "folders that the cluster sees"),
    _machine("python_paths", "texts", "code that the cluster sees"),
    _machine("service_dir", "text", "where the cluster's logs lie"),
    _machine("enable_distributed", "flag", "torchrun starts several processes"),
    _machine("dist_addr", "text", "torchrun says where processes meet"),
    _machine("dist_backend", "text", "nccl on GPUs, gloo on processors"),
    _machine("init_method", "text", "torchrun says how processes meet"),
    _cannot("compile_only", "there is nothing to compile beforehand", "flag", (False,)),
    _cannot(
        "validate_only", "there is no compiler to ask; `headrace plan` and `--mode eval` check a run", "flag", (False,)
    ),
)

CEREBRAS = (
    _does("save_iter_state_path", "text", "the loader's state, which a training that begins goes on from in the data"),
)

TOP = (
    _does("train_input", "section", "what to train on", section="input"),
    _does("eval_input", "section", "what to evaluate on", section="input"),
    _does("model", "section", "the model", section="model"),
    _does("optimizer", "section", "the optimizer", section="optimizer"),
    _does("runconfig", "section", "how to run", section="runconfig"),
    _does("cerebras", "section", "the loader's state", section="cerebras"),
)

SECTIONS: dict[str, tuple[Key, ...]] = {
    "": TOP,
    "input": INPUT,
    "mixture": MIXTURE,
    "model": MODEL,
    "initializer": INITIALIZER,
    "optimizer": OPTIMIZER,
    "scheduler": SCHEDULER,
    "adjust": ADJUST,
    "runconfig": RUNCONFIG,
    "cerebras": CEREBRAS,
}
"""The keys by section. `input` is that of train_input and eval_input."""
