"""What a block of the model holds: between forward and backward pass, and while its backward pass is computed.

Bytes of a process. N: its tokens; D, H, K, E, F: as in :mod:`headrace.model.transformer`; a: bytes of an activation.
"""

from __future__ import annotations

from dataclasses import dataclass

from headrace.memory.settings import Settings
from headrace.memory.shape import Shape

# As headrace.model.blockwise has them, which needs torch.
CPU_BLOCK, CPU_KEPT = 256, 2048
# As headrace.model.ring has them.
RING_QUERIES, RING_KEYS = 256, 2048
# Flex attention's mask keeps four tables of block numbers, int32, for blocks of 128 x 128.
FLEX_BLOCK, FLEX_TABLES = 128, 4


@dataclass(frozen=True)
class Half:
    """Attention or the feed-forward network of a block, with the norm before it.

    Attributes:
        kept: what autograd keeps for the backward pass.
        products: of that, what selective recomputation keeps: results of matrix products.
        work: what its backward pass holds at most beyond what is kept, less what it has let go by then.
        moved: of ``work``, what is exchanged with other processes.
    """

    kept: int
    products: int
    work: int
    moved: int = 0


def input_bytes(shape: Shape, settings: Settings) -> int:
    """The input of a block, [N, D]: what full recomputation keeps."""
    return settings.a * settings.tokens * shape.width


def attention(shape: Shape, settings: Settings) -> Half:
    """The attention of a block."""
    if settings.ring and settings.sequence > 1:
        return _ring(shape, settings)
    a, N = settings.a, settings.tokens
    D, E = shape.width, shape.head_size
    H, K = shape.heads // settings.tensor, max(1, shape.kv_heads // settings.tensor)
    # Whole rows, of fewer heads: where there are fewer key-value heads than processes, each has one.
    own_kv = max(K / settings.sequence, 1.0) * settings.sequence
    q, kv, projected = a * N * H * E, round(a * N * own_kv * E), a * N * (H + 2 * K) * E
    qkv_stays = shape.qk_norm or (settings.accelerator and settings.sequence == 1)
    # An accelerator's attention takes values as they lie in the projection; a CPU's makes them contiguous.
    kept = a * N * D + q + kv + (projected if qkv_stays else kv) + 4 * N
    if qkv_stays and not settings.accelerator:
        kept += kv
    kept += q  # the output, which the next product keeps
    if shape.qk_norm:
        kept += 4 * N * (H + K)
    if settings.accelerator:
        kept += 4 * N * H  # the logarithm of each sum
    products = projected + a * N * D
    moved = 0
    if settings.sequence > 1:
        kept += q  # the output before it is exchanged too
        moved = 2 * q  # what is sent and what is received
    work = a * N * D + q  # the gradient of the residual stream, and of the output
    if settings.accelerator:
        # FlashAttention-2 (Dao, 2023) sums the gradient of queries in float32, and has those of keys and values for
        # each query head before they are summed.
        work += q + 4 * N * H * E + 2 * kv + (2 * q if H > K else 0)
        products += q + 4 * N * H
        if settings.documents:
            kept += FLEX_TABLES * 4 * settings.rows * (settings.length // FLEX_BLOCK) ** 2 // shape.layers
    else:
        long = settings.length > CPU_KEPT
        kept += _cpu_weights(shape, settings, H)
        of_kv = 2 * kv * 4 // a if long else 2 * kv
        # The queries' gradient takes the place of the output. Blocks are done before what they give is exchanged.
        square = _cpu_square(shape, settings, H)
        work += of_kv + max(0, square - moved)
    return Half(kept, products, work + moved, moved)


def _ring(shape: Shape, settings: Settings) -> Half:
    """Attention where keys and values go round: each process has its own queries, and a stretch of the others'."""
    a, N = settings.a, settings.tokens
    D, E = shape.width, shape.head_size
    H, K = shape.heads // settings.tensor, max(1, shape.kv_heads // settings.tensor)
    q, kv, projected = a * N * H * E, 2 * a * N * K * E, a * N * (H + 2 * K) * E
    # The output twice: by heads, and as the next product takes it.
    kept = a * N * D + 3 * q + kv + 4 * N * (1 + H) + (projected if shape.qk_norm else 0)
    moved = 2 * kv + 2 * (kv * 4 // a)  # keys and values, and their gradients in float32: here and on their way
    # Weights and the gradient of scores of a tile, and where products are in bfloat16 copies of both.
    tile = min(RING_QUERIES, settings.stretch) * min(RING_KEYS, settings.stretch)
    squares = (3 if settings.bits16 else 2) * 4 * settings.rows * H * tile
    work = a * N * D + q + 4 * N * H * E + squares
    return Half(kept, projected + a * N * D, work + moved, moved)


def feed_forward(shape: Shape, settings: Settings) -> Half:
    """The feed-forward network of a block."""
    a, N, D, F = settings.a, settings.tokens, shape.width, shape.ffn // settings.tensor
    inputs = (0 if shape.parallel else a * N * D) + a * N * D + 4 * N
    inner = a * N * F * (4 if shape.gated else 2)
    products = a * N * (F * (2 if shape.gated else 1) + D)
    work = a * N * D + a * N * F * (2 if shape.gated else 1)
    tile = settings.tile_mlp
    if tile is None or tile >= settings.stretch:
        return Half(inputs + inner, products, work)
    # A tile is computed again and differentiated; the gradient of the input, and sums of the weights' in float32.
    part = settings.rows * tile
    again = a * part * (F * (7 if shape.gated else 4) + 2 * D)
    sums = 4 * (3 if shape.gated else 2) * D * F // (1 if settings.bits16 else 2)
    return Half(inputs, 0, 2 * a * N * D + again + sums)


def _cpu_weights(shape: Shape, settings: Settings, heads: int) -> int:
    """Weights [rows, heads, 256, keys] of blocks of queries that see at most so many keys; a mean over the layers."""
    total = 0
    for window in shape.windows:
        for end in range(CPU_BLOCK, settings.length + CPU_BLOCK, CPU_BLOCK):
            stop = min(end, settings.length)
            size = CPU_BLOCK - (end - stop)
            keys = stop if window is None else min(stop, window + size - 1)
            if keys > CPU_KEPT:
                break
            total += size * keys
            if window is not None and end > CPU_KEPT + window:  # the rest are as this one
                total += size * keys * ((settings.length - stop) // CPU_BLOCK)
                break
    return settings.a * settings.rows * heads * total // (len(shape.windows) * settings.sequence)


def _cpu_square(shape: Shape, settings: Settings, heads: int) -> int:
    """What attention holds of blocks of weights, [rows, heads, 256, keys], beyond those that are kept.

    Of a block, backward has the gradients of weights and of scores, and the weights themselves if they were not kept.
    Where blocks are recomputed, weights that were kept are let go one by one, so the most is there at the second block;
    or already while they are computed again, when the last block's scores are there.
    """
    widest = max(settings.length if w is None else min(settings.length, w + CPU_BLOCK) for w in shape.windows)
    block = min(CPU_BLOCK, settings.length)
    unit = settings.a * settings.rows * heads * block // settings.sequence
    again = settings.recompute != "none"
    if widest > CPU_KEPT:
        let_go = _cpu_weights(shape, settings, heads) if again else 0
        return max(3 * unit * widest - let_go, 2 * unit * widest)
    if not again:
        return 2 * unit * widest
    last = (settings.length % block or block) if widest == settings.length else block
    ahead = max(last * widest, block * (widest - last) - last * widest)
    return unit * max(min(-(-widest // block) + 1, 3) * block, ahead // block)
