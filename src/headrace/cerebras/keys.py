"""Every key of a params file, and what becomes of it here: the one table that reading, translating and docs go by.

Sources: LLM360/crystalcoder-train, ``pretrain/params``; Cerebras Model Zoo 1.9.1 to 2.1.1, ``common/run_utils``,
``common/pytorch``, ``transformers/pytorch/{gpt2,gptj}/model.py``, ``gpt2/input``, ``h5_map_dataset``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

KINDS = {
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
        kind: what its value must be, of :data:`KINDS`; null stands for the key's absence.
        meaning: what it does here, or why it has no effect or is refused.
        only: the values that are accepted, if not all; texts in any case.
        otherwise: why others are not.
        section: the section that its value is, or is a list of.
        same: the key of the section that this is another name of, in other releases; it says the rest.
        use: honoured: the recipe says the same; noted: accepted, without effect here; hardware: the same, because it
            speaks of Cerebras' machines or of its way of launching; refused: an error.
    """

    name: str
    kind: str = ""
    meaning: str = ""
    only: tuple[Any, ...] = ()
    otherwise: str = ""
    section: str = ""
    same: str = ""
    use: str = "honoured"


_machine, _needless, _cannot = (partial(Key, use=use) for use in ("hardware", "noted", "refused"))

_MAP, _NO_DROPOUT = "GptHDF5MapDataProcessor", "headrace's model has no dropout"
_IN_ORDER = "headrace trains on rows in their order: shuffle the files when they are made"
_OTHER_LOADER = "its rows come in an order that depends on processes, or from other files"
_HEADS = ("aiayn_attention", "multiquery_attention")
_NO_FLOAT16 = "float16 is not supported; bfloat16 needs no loss scaling"
_CURVES = ("Constant", "Linear", "Polynomial", "CosineDecay", "Exponential", "PiecewiseConstant")
_DIVISOR = "batch_size: the summed loss is divided by rows; num_tokens: by tokens that carry loss"
_NO_SCALE = "bfloat16 has the range of float32: nothing is scaled against underflow"
_NEWER = "this file is of a release with a Trainer (2.3 on); headrace takes those before it, with a runconfig"

TOP = (
    Key("train_input", "section", "what to train on", section="input"),
    Key("eval_input", "section", "what to evaluate on", section="input"),
    Key("model", "section", "the model", section="model"),
    Key("optimizer", "section", "the optimizer", section="optimizer"),
    Key("runconfig", "section", "how to run", section="runconfig"),
    Key("cerebras", "section", "the loader's state", section="cerebras"),
    _machine("csconfig", "anything", "types of Cerebras' kernels"),
    _cannot("sparsity", "anything", "headrace's weights are dense"),
    _cannot("trainer", "anything", _NEWER),
)

INPUT = (
    Key("data_processor", "text", "HDF5 of three lines a row, read in its order", (_MAP,), _OTHER_LOADER),
    Key("batch_size", "count", "rows of a step, over all machines"),
    Key("micro_batch_size", "count", "rows of a forward pass; gradients add up"),
    Key("data_dir", "texts", "folders of HDF5 files, whose rows follow one another"),
    Key("data_subset", "text", "parts of the rows as shares, such as 0.0-0.1,0.5-0.6"),
    Key("mixture", "sections", "folders mixed by weight, in an order drawn from shuffle_seed", section="mixture"),
    Key("max_sequence_length", "count", "length of a row, for files that are one line of tokens"),
    Key("shuffle", "flag", "rows keep their order", (False,), _IN_ORDER),
    Key("shuffle_seed", "whole", "seed of a mixture's order"),
    Key("sort_files", "flag", "files in the order of their names", (True,), "file systems differ in theirs"),
    Key("drop_last", "flag", "an epoch's rows that fill no batch begin the next epoch", (True,), "batches are whole"),
    _needless("repeat", "flag", "this processor does not look at it: max_steps decides"),
    _needless("vocab_size", "whole", "this processor does not look at it: model.vocab_size decides"),
    _needless("num_workers", "whole", "batches are read ahead by a thread, and do not depend on it"),
    _needless("prefetch_factor", "whole", "two batches are read ahead"),
    _needless("persistent_workers", "flag", "there are no workers to keep"),
    _machine("use_worker_cache", "flag", "whether data are copied to the disks of Cerebras' workers"),
    _cannot("num_samples", "anything", "an epoch is all rows; max_steps says when to stop"),
    _cannot("pad_last", "flag", "batches are whole", (False,)),
    _cannot("use_vsl", "flag", "files with five lines a row go in a recipe, with train.attention.documents", (False,)),
)

MIXTURE = (
    Key("data_dir", "texts", "folders of HDF5 files, whose rows follow one another"),
    Key("weight", "positive", "share of the mixture, relative to the other weights"),
    Key("data_subset", "text", "parts of the rows as shares"),
)

MODEL = (
    Key("vocab_size", "count", "rows of the embedding"),
    Key("hidden_size", "count", "width of the residual stream"),
    Key("num_hidden_layers", "count", "transformer blocks"),
    Key("num_heads", "count", "attention heads"),
    Key("attention_module", "text", "whether heads share keys", _HEADS, "headrace has these two"),
    Key("extra_attention_params", "section", "of multiquery_attention", section="attention"),
    Key("filter_size", "count", "hidden size of the feed-forward network"),
    Key("nonlinearity", "text", "its activation", ("swiglu", "gelu", "gelu_new"), "headrace has these"),
    Key("norm_type", "text", "normalization", ("layernorm", "rmsnorm"), "headrace has these two"),
    Key("use_rms_norm", "flag", "the same as norm_type: rmsnorm"),
    Key("layer_norm_epsilon", "positive", "added to a norm's variance"),
    Key("use_untied_layer_norm", "flag", "GPT-NeoX's blocks", (True,), "headrace's parallel blocks have two norms"),
    Key("max_position_embeddings", "count", "length of a row, unless the data say otherwise"),
    Key("use_position_embedding", "flag", "whether positions are embedded"),
    Key("position_embedding_type", "text", "how", ("rotary", "learned"), "headrace has these two"),
    Key("rotary_dim", "whole", "rotated dimensions of a head, in interleaved pairs"),
    Key("rope_theta", "positive", "base of the rotary frequencies"),
    Key("pos_scaling_factor", "positive", "what rotary frequencies are divided by"),
    Key("share_embedding_weights", "flag", "the output head is the embedding"),
    Key("dropout_rate", "number", "none", (0,), _NO_DROPOUT),
    Key("attention_dropout_rate", "number", "none", (0,), _NO_DROPOUT),
    Key("embedding_dropout_rate", "number", "none", (0,), _NO_DROPOUT),
    Key("residual_dropout_rate", "number", "none", (0,), _NO_DROPOUT),
    Key("attention_type", "text", "see scale_qk_dot_by_d", ("scaled_dot_product",), "headrace has dot products alone"),
    Key("use_projection_bias_in_attention", "flag", "biases of queries, keys and values"),
    Key("use_ffn_bias_in_attention", "flag", "bias of attention's output matrix"),
    Key("use_ffn_bias", "flag", "biases of the feed-forward network"),
    Key("use_bias_in_output", "flag", "bias of the logits"),
    Key("initializer_range", "positive", "standard deviation where there is no initializer; GPT-2's 0.02"),
    Key("embedding_initializer", "section", "distribution of the embedding", section="initializer"),
    Key("initializer", "section", "that of the matrices between embedding and output", section="initializer"),
    Key("output_layer_initializer", "section", "that of matrices into the residual stream", section="initializer"),
    Key("scale_glu_initialization", "flag", "the gate is drawn like other matrices", (True,), "headrace does so"),
    Key("weight_initialization_seed", "whole", "seed of the weights"),
    Key("embeddings_scale", "positive", "factor of the embedding's output (muP)"),
    Key("output_logits_scale", "positive", "factor of the logits (muP)"),
    Key("scale_qk_dot_by_d", "flag", "dot products are divided by the head's dimension, not by its root (muP)"),
    Key("loss_scaling", "text", _DIVISOR, ("batch_size", "num_tokens"), "there are these two"),
    Key("loss_weight", "positive", "factor of the loss"),
    Key("mixed_precision", "flag", "bf16, or all in float32"),
    Key("use_bfloat16", "flag", "the type of mixed precision", (True,), _NO_FLOAT16),
    Key("fp16_type", "text", "the same; off its hardware bfloat16", ("bfloat16", "cbfloat16"), _NO_FLOAT16),
    _needless("attention_softmax_fp32", "flag", "softmax always has float32 statistics"),
    _needless("compute_eval_metrics", "flag", "perplexity follows from the loss that is shown"),
    _machine("attention_kernel", "text", "which of Cerebras' attention kernels runs"),
    _machine("boundary_casting", "flag", "types at the borders of Cerebras' kernels"),
    _machine("precision_opt_level", "anything", "how precise Cerebras' kernels are"),
    _machine("alibi_implementation", "text", "which of Cerebras' kernels runs"),
    _cannot("fixed_sparse_attention", "anything", "attention is dense"),
    _cannot("moe_params", "anything", "headrace's model has one feed-forward network a block"),
    _cannot("lora_params", "anything", "all weights are trained"),
    _cannot("embedding_layer_norm", "flag", "headrace's embedding has no norm", (False,)),
    _cannot("scale_qk_dot_by_layer_idx", "flag", "dot products are scaled alike in all layers", (False,)),
)

ATTENTION = (Key("num_kv_groups", "count", "heads of keys and values, by default 1"),)

INITIALIZER = (
    Key("name", "text", "its distribution", ("truncated_normal", "normal"), "headrace has these two"),
    Key("mean", "signed", "mean", (0,), "weights are drawn around 0"),
    Key("std", "positive", "standard deviation, by default 0.05"),
    Key("a", "signed", "least value of truncated_normal, by default -2 std"),
    Key("b", "signed", "greatest value of truncated_normal, by default 2 std"),
)

OPTIMIZER = (
    Key("optimizer_type", "text", "AdamW", ("AdamW",), "headrace translates AdamW"),
    Key("beta1", "number", "decay of the running mean of the gradient"),
    Key("beta2", "number", "decay of the running mean of its square"),
    Key("betas", "numbers", "beta1 and beta2"),
    Key("eps", "positive", "added to the update's denominator"),
    Key("correct_bias", "flag", "corrects that running means begin at 0", (True,), "headrace's AdamW always corrects"),
    Key("use_bias_correction", same="correct_bias"),
    Key("weight_decay_rate", "number", "weight decay of matrices; never of biases and norms"),
    Key("weight_decay", same="weight_decay_rate"),
    Key("max_gradient_norm", "number", "norm above which gradients are scaled down"),
    Key("learning_rate", "rates", "schedulers that follow one another, each for its steps", section="scheduler"),
    Key("adjust_learning_rate", "section", "factors of the learning rate by kind of weight", section="adjust"),
    _needless("loss_scaling_factor", "anything", _NO_SCALE),
    _needless("initial_loss_scale", "anything", _NO_SCALE),
    _needless("min_loss_scale", "anything", _NO_SCALE),
    _needless("max_loss_scale", "anything", _NO_SCALE),
    _needless("steps_per_increase", "anything", _NO_SCALE),
    _needless("log_summaries", "flag", "the gradient's norm and the rate are always in metrics.jsonl"),
    _machine("ws_summary", "anything", "summaries of Cerebras' machines"),
    _cannot("max_gradient_value", "number", "gradients are clipped by their norm", (0,)),
    _cannot("grad_accum_steps", "count", "batch_size counts the rows of a whole step; see micro_batch_size", (1,)),
    _cannot("amsgrad", "flag", "headrace has AdamW alone", (False,)),
    _cannot("momentum", "anything", "AdamW has none"),
    _cannot("disable_lr_steps_reset", "flag", "each scheduler begins at its own first step", (False,)),
)

SCHEDULER = (
    Key("scheduler", "text", "its curve", _CURVES, "headrace has these curves"),
    Key("learning_rate", "number", "the rate of Constant"),
    Key("initial_learning_rate", "number", "the rate at its first step"),
    Key("end_learning_rate", "number", "the rate after its last step"),
    Key("steps", "count", "how many steps it has"),
    Key("decay_steps", same="steps"),
    Key("total_iters", same="steps"),
    Key("decay_rate", "positive", "what Exponential multiplies with in its steps"),
    Key("power", "number", "Polynomial is Linear", (1,), "headrace has the first power alone"),
    Key("values", "numbers", "the rates of PiecewiseConstant"),
    Key("boundaries", "numbers", "the steps at which PiecewiseConstant changes"),
    _needless("base_lr", "number", "what the optimizer held when the file was written; the curve says all"),
    _cannot("staircase", "flag", "Exponential decays at every step; write PiecewiseConstant for stairs", (False,)),
    _cannot("cycle", "flag", "a scheduler runs once", (False,)),
)

ADJUST = (Key("decoder_kernel", "positive", "factor of the rate of hidden matrices (muP: base width / width)"),)

RUNCONFIG = (
    Key("mode", "text", "what to do", ("train", "eval", "train_and_eval", "eval_all"), "there are these four"),
    Key("model_dir", "text", "the run folder"),
    Key("max_steps", "count", "the last step"),
    Key("num_steps", "count", "steps from the checkpoint on, at most to max_steps"),
    Key("num_epochs", "count", "passes over the training data, instead of num_steps"),
    Key("eval_steps", "count", "batches of eval_input to evaluate; all if it is not given"),
    Key("eval_frequency", "count", "train_and_eval: steps from one evaluation to the next; an epoch's by default"),
    Key("checkpoint_steps", "whole", "steps between checkpoints; 0 or null: only the last step's"),
    Key("max_checkpoints", "count", "checkpoints to keep, the newest; all if it is not given"),
    Key("keep_checkpoint_max", same="max_checkpoints"),
    Key("save_initial_checkpoint", "flag", "a checkpoint of step 0 too"),
    Key("autoload_last_checkpoint", "flag", "go on from the newest checkpoint in model_dir"),
    Key("checkpoint_path", "text", "the checkpoint to start from"),
    Key("is_pretrained_checkpoint", "flag", "take the weights alone: step, schedule and optimizer begin anew"),
    Key("log_steps", "count", "steps between lines of metrics.jsonl"),
    _needless("seed", "whole", "nothing in training draws: weights and data have seeds of their own"),
    _needless("save_losses", "flag", "losses are always in metrics.jsonl"),
    _needless("logging", "text", "progress is shown on a terminal"),
    _needless("num_workers", "whole", "batches are read ahead by a thread, and do not depend on it"),
    _needless("check_loss_values", "flag", "losses that are not finite are always looked for"),
    _needless("enable_summaries", "flag", "what summaries tell is in metrics.jsonl"),
    _needless("save_summary_steps", "whole", "see log_steps"),
    _needless("show_debug_metrics", "flag", "there are none"),
    _needless("sync_batchnorm", "flag", "there is no batch norm"),
    _machine("target_device", "text", "an accelerator is used where there is one"),
    _machine("precision_opt_level", "anything", "how precise Cerebras' kernels are"),
    _machine("use_cs_grad_accum", "flag", "whether Cerebras' compiler chooses a micro-batch; see micro_batch_size"),
    _machine("num_csx", "whole", "how many CS-2 systems there are"),
    _machine("num_workers_per_csx", "whole", "data workers of a system"),
    _machine("num_act_servers", "whole", "servers of activations"),
    _machine("num_wgt_servers", "whole", "servers of weights"),
    _machine("num_replicas", "whole", "copies of the model on a system"),
    _machine("multireplica", "flag", "copies of the model on a system"),
    _machine("wrk_memory_gi", "whole", "memory of a data worker"),
    _machine("transfer_processes", "whole", "processes that move weights"),
    _machine("use_appliance_data", "flag", "how data reach the systems"),
    _machine("use_cstorch_optimizer_step", "flag", "which of Cerebras' optimizers runs"),
    _machine("skip_train_recv_activations", "flag", "what the systems send back"),
    _machine("execution_strategy", "text", "how Cerebras' machines run the model"),
    _machine("autogen_policy", "text", "which kernels are generated"),
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
    _machine("main_process_id", "whole", "torchrun says which process is first"),
    _machine("dist_addr", "text", "torchrun says where processes meet"),
    _machine("dist_backend", "text", "nccl on GPUs, gloo on processors"),
    _machine("init_method", "text", "torchrun says how processes meet"),
    _cannot("steps_per_epoch", "count", "an epoch is all rows; eval_frequency says how often to evaluate"),
    _cannot("save_stream_size", "whole", "`headrace replay` shows what is trained on", (0,)),
    _cannot("load_checkpoint_states", "text", "write is_pretrained_checkpoint for the weights alone"),
    _cannot("disable_strict_checkpoint_loading", "flag", "a checkpoint must fit its model", (False,)),
    _cannot("compile_only", "flag", "there is nothing to compile beforehand", (False,)),
    _cannot("validate_only", "flag", "there is no compiler to ask; `--mode eval` checks a file and its data", (False,)),
)

CEREBRAS = (Key("save_iter_state_path", "text", "the loader's state: where a training begins in the data"),)

SECTIONS: dict[str, tuple[Key, ...]] = {
    "": TOP,
    "input": INPUT,
    "mixture": MIXTURE,
    "model": MODEL,
    "attention": ATTENTION,
    "initializer": INITIALIZER,
    "optimizer": OPTIMIZER,
    "scheduler": SCHEDULER,
    "adjust": ADJUST,
    "runconfig": RUNCONFIG,
    "cerebras": CEREBRAS,
}
"""The keys by section. `input` is that of train_input and eval_input."""
