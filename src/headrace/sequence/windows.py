"""What a trainer needs to know about each position of a row: its segment, its position, whether its target has loss."""

from __future__ import annotations

import numpy as np

from headrace.flow.kernels import kernel

PADDING = 255  # kind of segments that hold padding
JOINED = 8  # added to the kind of a segment that goes on with the training document of the one before it in the row
KINDS = {
    0: "plain", 1: "fim-psm", 2: "fim-spm", 3: "chat", PADDING: "padding",
    JOINED: "joined", JOINED + 1: "joined-fim-psm", JOINED + 2: "joined-fim-spm",
}  # fmt: skip


@kernel
def describe(
    bounds: np.ndarray,
    start: np.ndarray,
    length: np.ndarray,
    kind: np.ndarray,
    restart: bool,
    segment_ids: np.ndarray,
    positions: np.ndarray,
    loss: np.ndarray,
) -> None:
    """Spread the segments of B rows over their L input positions.

    Segment ids count from 1 in each row and are 0 on padding, as in T5X and grain; files that are joined into one
    training document share theirs, and positions go on from one to the next. The loss at position i is that of its
    target, token i + 1: this sets it to False where the target is padding and leaves it unchanged elsewhere.

    Args:
        bounds: int32[B + 1]; row b has segments ``bounds[b]`` to ``bounds[b + 1]``.
        start: int32, first position of each segment.
        length: int32, tokens of each segment.
        kind: uint8, kind of each segment.
        restart: whether positions restart at 0 with each segment rather than count through the row.
        segment_ids: int32[B, L], filled.
        positions: int32[B, L], filled.
        loss: bool[B, L], updated.
    """
    B, L = segment_ids.shape
    for b in range(B):
        number = 0
        joint = 0
        for s in range(bounds[b], bounds[b + 1]):
            first = start[s]
            stop = min(first + length[s], L)
            if kind[s] == PADDING:
                for i in range(max(first, 1), min(first + length[s], L + 1)):
                    loss[b, i - 1] = False
                name = 0
                origin = first
            else:
                if number == 0 or kind[s] & JOINED == 0:
                    number += 1
                    joint = first
                name = number
                origin = joint
            if not restart:
                origin = 0
            for i in range(first, stop):
                segment_ids[b, i] = name
                positions[b, i] = i - origin


@kernel
def unpack_targets(bits: np.ndarray, first: int, masked: np.ndarray, loss: np.ndarray) -> None:
    """Read the loss of B rows' targets from a bitmap.

    Args:
        bits: uint8, least significant bit first; L + 1 bits per row.
        first: the bit of the first row's token 0.
        masked: bool[B], whether a row has a mask; rows without one have loss everywhere.
        loss: bool[B, L], filled: entry i is the bit of token i + 1.
    """
    B, L = loss.shape
    for b in range(B):
        if masked[b]:
            bit = first + b * (L + 1) + 1
            for i in range(L):
                at = bit + i
                loss[b, i] = (bits[at >> 3] >> (at & 7)) & 1
        else:
            for i in range(L):
                loss[b, i] = True
