"""The memory of Arctic Long Sequence Training (Bekman et al., 2025, arXiv 2506.13996): its accounting and its ablation.

That is another engine than headrace's: weights, gradients and activations in bfloat16 and their masters in float32
(DeepSpeed ZeRO-3), a Llama of transformers with Liger's fused norm, rotary embedding and SwiGLU, FlashAttention-2, one
row in each process.
"""

from __future__ import annotations

from dataclasses import dataclass

from headrace.memory.estimate import CUDA_CONTEXT
from headrace.memory.machines import MARGIN
from headrace.memory.shape import Shape

# Weights in bfloat16, masters in float32, Adam's two moments in float32, gradients in float32.
PARAMETER_BYTES = 2 + 4 + 8 + 4
# ZeRO's reduce_bucket_size of 5e8 numbers in bfloat16.
BUCKET = 1_000_000_000
HALF, SINGLE = 2, 4  # bytes of bfloat16 and float32


def model_states(parameters: int) -> int:
    """Bytes of weights, gradients and optimizer together."""
    return PARAMETER_BYTES * parameters


def logits(tokens: int, vocab: int) -> int:
    """Bytes of one copy of logits in float32."""
    return SINGLE * tokens * vocab


def checkpoints(tokens: int, width: int, layers: int) -> int:
    """Bytes of all blocks' inputs in bfloat16."""
    return HALF * tokens * width * layers


def host_checkpoints(tokens: int, width: int, layers: int, nodes: int) -> int:
    """Bytes of them in the host memory of each node, if they are offloaded and rows are shared by all processes."""
    return checkpoints(tokens, width, layers) // nodes


@dataclass(frozen=True)
class Features:
    """A line of the paper's tables.

    Attributes:
        name: as it says.
        gpus: how many share each row, or train a row each.
        published: the longest row, tokens.
        tiled_loss, sequence, tiled_mlp, offloaded: which of the four ideas is on.
    """

    name: str
    gpus: int
    published: int
    tiled_loss: bool = False
    sequence: bool = False
    tiled_mlp: bool = False
    offloaded: bool = False


ALL = {"tiled_loss": True, "sequence": True, "tiled_mlp": True, "offloaded": True}
PUBLISHED = (
    Features("baseline", 8, 32_000),
    Features("+ tiled logits and loss", 8, 160_000, tiled_loss=True),
    Features("+ Ulysses", 8, 1_100_000, tiled_loss=True, sequence=True),
    Features("+ tiled MLP", 8, 1_200_000, tiled_loss=True, sequence=True, tiled_mlp=True),
    Features("+ offloaded checkpoints, MLP not tiled", 8, 2_400_000, tiled_loss=True, sequence=True, offloaded=True),
    Features("all", 8, 3_700_000, **ALL),
    Features("all, on one GPU", 1, 500_000, **ALL),
    Features("all, on four nodes", 32, 15_000_000, **ALL),
)
"""Llama-3.1-8B on H100s of 80 GB; the tables on ablation and on scale."""


def longest(shape: Shape, features: Features, device: int) -> int:
    """The longest row by that accounting.

    Args:
        shape: the model.
        features: what is on, and how many GPUs.
        device: bytes of a GPU.
    """
    # The optimizer and gradients are in host memory, on one GPU weights too; a block and the head are gathered.
    weights = 0 if features.gpus == 1 else HALF * shape.parameters // features.gpus
    standing = CUDA_CONTEXT + weights + HALF * (shape.block + shape.table) + BUCKET
    room = int(device * (1 - MARGIN)) - standing
    shared = features.gpus if features.sequence else 1
    return shared * (room // _each_token(shape, features))


def _each_token(shape: Shape, features: Features) -> int:
    """Bytes of a token in the process that has it, at the moment with most; all but the loss's in bfloat16."""
    D, F = shape.width, shape.ffn
    q, kv = shape.heads * shape.head_size, 2 * shape.kv_heads * shape.head_size
    exchanged = features.sequence and features.gpus > 1
    # Block inputs: all, or one in use and one on its way.
    inputs = HALF * D * (2 if features.offloaded else shape.layers)
    # Recomputed: two norms, queries, keys and values, the output (as it is exchanged, too), the feed-forward's input.
    kept = D + q + kv + q + exchanged * q
    fed = D + D
    # Backward of the feed-forward network: gate, value, their product and its gradient, and the output's gradient.
    feed_forward = kept + fed + 4 * F + D
    # Of attention: the residual's gradient, in the block and as it came in, the output's, FlashAttention-2's of queries
    # in bfloat16 and summed in float32, of keys and values, for each query head first; what is sent and received.
    attention = kept + 2 * D + q + q + 2 * q + kv + 2 * q + exchanged * 2 * q
    block = HALF * (attention if features.tiled_mlp else max(feed_forward, attention))
    # Logits in bfloat16, in float32, and their logarithms.
    loss = 0 if features.tiled_loss else (HALF + 2 * SINGLE) * shape.vocab
    return inputs + max(block, loss)
