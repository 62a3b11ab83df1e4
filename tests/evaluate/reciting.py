"""A language model of bytes that has learnt some texts by heart and goes on with whichever it is reading."""

from __future__ import annotations

import numpy as np
import torch

END = 256


class Reciting:
    """Goes on with the answers to a prompt, any of which is as likely as the others.

    Args:
        answers: prompt -> its answers.
    """

    stop = frozenset([END])
    longest = None

    def __init__(self, answers: dict[str, list[str]]) -> None:
        self.texts = [(len(p.encode()), [*(p + a).encode()]) for p, several in answers.items() for a in several]

    def encode(self, text):
        return list(text.encode())

    def decode(self, prompt, tokens):
        return bytes(token for token in tokens if token < END).decode(errors="replace")

    def decoding(self):
        return Reading(self.texts)


class Reading:
    """What has been read so far, a row each.

    Args:
        texts: ids of prompts with their answers, and the length of the prompt.
        end: the id that ends a text.
        size: ids there are.
    """

    def __init__(self, texts, end=END, size=END + 1):
        self.texts, self.end, self.size, self.rows = texts, end, size, []

    def read(self, tokens):
        rows = self.rows or [[]] * len(tokens)
        self.rows = [row + new.tolist() for row, new in zip(rows, tokens, strict=True)]
        logits = np.full((len(self.rows), self.size), -1e9)
        for i, row in enumerate(self.rows):
            for least, text in self.texts:
                if len(row) >= least and text[: len(row)] == row:
                    logits[i, text[len(row)] if len(row) < len(text) else self.end] = 0.0
        return torch.from_numpy(logits)

    def keep(self, rows):
        self.rows = [self.rows[row] for row in rows]
