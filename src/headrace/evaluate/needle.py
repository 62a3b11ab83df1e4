"""Needle in a haystack: does a model find a pass key that one line of a long text tells?

    needle-<hash>/
        settings.json      everything that decides the bytes of the others; the hash is of this
        trials.jsonl       a line per trial: what the model wrote, the losses of the key
        summary.json       by length and depth; written last

The task is passkey retrieval (Mohtashami and Jaggi, 2023, 2305.16300) in real text at several lengths and depths
(Kamradt, 2023). Small models seldom write a key of five digits that they have read once, so two more things are
measured, which tell of less: whether the key has the lowest loss of ten candidates, and its loss with the needle in the
text and without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headrace.errors import UserError
from headrace.evaluate.identified import Identified
from headrace.evaluate.language import Language
from headrace.evaluate.log import Log
from headrace.evaluate.long_texts import LongTexts
from headrace.flow.keys import keyed, salt, unit
from headrace.flow.lock import lock
from headrace.flow.storage import write_json
from headrace.recipe.bounded_yaml import parse

TASK = "needle"
TRIALS, SETTINGS, SUMMARY = "trials.jsonl", "settings.json", "summary.json"
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
DIGITS, CANDIDATES = 5, 10
# Each candidate takes a copy of the keys and values of the whole prompt; above so many tokens only the key is scored.
CANDIDATES_UP_TO = 8192


@dataclass(frozen=True)
class Prompt:
    """How the key is hidden and asked for; ``{key}`` stands for it.

    Attributes:
        before: what stands before the text.
        needle: what is put into the text, between two lines.
        question: what stands after it. The answer that is expected is a space and the key.
    """

    before: str = "One line of the following text tells a pass key, which will be asked for.\n\n"
    needle: str = "\nThe pass key is {key}. Remember that {key} is the pass key.\n"
    question: str = "\n\nWhat is the pass key? The pass key is"


def read_prompt(path: Path) -> Prompt:
    """The prompt of a YAML file with some of the keys ``before``, ``needle`` and ``question``.

    Raises:
        UserError: the file cannot be read, or is something else.
    """
    try:
        _, told = parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The prompt cannot be read: {error}.", f"--needle {path}", "Give a text file.") from None
    known = Prompt.__dataclass_fields__
    if not isinstance(told, dict) or not all(name in known and isinstance(text, str) for name, text in told.items()):
        raise UserError(f"A prompt has the keys {', '.join(known)}, which are texts.", str(path), "Mend the file.")
    prompt = Prompt(**told)
    if "{key}" not in prompt.needle or "{key}" in prompt.before + prompt.question:
        raise UserError("The key must stand in the needle, and nowhere else.", str(path), "Write {key} into `needle`.")
    return prompt


@dataclass(frozen=True)
class Settings(Identified):
    """What decides the results.

    Attributes:
        model: digest of model and tokenizer.
        texts: digest of the documents' tokens.
        prompt: how the key is hidden and asked for.
        lengths: tokens of the prompts.
        trials: for each length and depth.
        seed: of keys, and of the texts that are taken.
    """

    model: str
    texts: str
    prompt: Prompt
    lengths: tuple[int, ...]
    trials: int
    seed: int

    def wanted(self) -> Iterator[dict[str, Any]]:
        """All trials, in their order."""
        for length in self.lengths:
            for depth in DEPTHS:
                for trial in range(self.trials):
                    yield {"length": length, "depth": depth, "trial": trial}


def lengths_up_to(length: int, language: Language, prompt: Prompt) -> tuple[int, ...]:
    """A length, and its half, quarter and eighth as far as a prompt leaves half of them to the text."""
    least = 2 * len(language.encode(f"{prompt.before}{prompt.needle}{prompt.question}"))
    return tuple(sorted({length, *(length // part for part in (2, 4, 8) if length // part >= least)}))


def evaluate(
    language: Language,
    texts: LongTexts,
    settings: Settings,
    folder: Path,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> dict[str, Any]:
    """Try a model, or go on where an evaluation with the same settings was stopped.

    Args:
        language: the model.
        texts: the haystacks, at least one, of as many tokens as the longest prompt.
        settings: as above.
        folder: where to; created.
        progress: hears how far it is.

    Returns:
        ``{"trials", "chance", "cells": [{"length", "depth", "exact", "first", "loss", "without"}]}``: the shares of
        trials in which the model wrote the key and in which it had the lowest loss of the candidates (None where they
        were not compared); the key's loss in nats, of all its tokens, with the needle and without.

    Raises:
        UserError: a length does not hold the prompt, another evaluation is using the folder, or it cannot be written.
    """
    wanted = list(settings.wanted())
    with lock(folder):
        write_json(folder / SETTINGS, asdict(settings))
        log = Log(folder / TRIALS, wanted)
        for about in wanted[len(log.lines) :]:
            progress(TASK, len(log.lines), len(wanted))
            log.append([{**about, **_try(language, texts, settings, **about)}])
        progress(TASK, len(wanted), len(wanted))
        cells = [_cell(log.lines[at : at + settings.trials]) for at in range(0, len(wanted), settings.trials)]
        summary = {"trials": settings.trials, "chance": 1 / CANDIDATES, "cells": cells}
        write_json(folder / SUMMARY, summary)
    return summary


def _cell(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    ranks = [line["rank"] for line in lines if line["rank"] is not None]
    return {
        "length": lines[0]["length"],
        "depth": lines[0]["depth"],
        "exact": float(np.mean([line["exact"] for line in lines])),
        "first": float(np.mean([rank == 0 for rank in ranks])) if ranks else None,
        "loss": float(np.mean([line["loss"] for line in lines])),
        "without": float(np.mean([line["without"] for line in lines])),
    }


def _try(
    language: Language, texts: LongTexts, settings: Settings, length: int, depth: float, trial: int
) -> dict[str, Any]:
    keys, haystack = draws(settings.seed, length, depth, trial, len(texts.tokens))
    tokens, prompt = texts.tokens[haystack].tolist(), settings.prompt
    candidates = keys if length <= CANDIDATES_UP_TO else keys[:1]
    written, losses = answer(language, hide(language, tokens, prompt, keys[0], length, depth), candidates)
    _, without = answer(language, hide(language, tokens, prompt, None, length, depth), keys[:1])
    return {
        "key": keys[0],
        "written": written,
        "exact": written.lstrip()[:DIGITS] == keys[0] and not written.lstrip()[DIGITS : DIGITS + 1].isdigit(),
        "rank": int(np.sum(np.array(losses[1:]) <= losses[0])) if len(losses) > 1 else None,
        "loss": losses[0],
        "without": without[0],
    }


def draws(seed: int, length: int, depth: float, trial: int, texts: int) -> tuple[list[str], int]:
    """The key of a trial and other candidates, all different, and which text is its haystack."""
    drawn = unit(keyed(salt(seed, TASK, length, str(depth), trial), np.arange(8 * CANDIDATES + 1, dtype=np.uint64)))
    low = 10 ** (DIGITS - 1)
    numbers = dict.fromkeys(low + int(u * 9 * low) for u in drawn[1:])
    return [str(number) for number in numbers][:CANDIDATES], int(drawn[0] * texts)


def hide(language: Language, tokens: list[int], prompt: Prompt, key: str | None, length: int, depth: float) -> str:
    """A prompt of at most ``length`` tokens, the answer included, and hardly less.

    Args:
        language: what tokenizes.
        tokens: the haystack.
        prompt: the texts around it.
        key: what is hidden; None: nothing.
        length: most tokens.
        depth: where: 0 before the text, 1 after it, between two lines if there are some.
    """
    start = language.encode("")
    tokens = tokens[len(start) :] if tokens[: len(start)] == start else tokens
    needle = "" if key is None else prompt.needle.replace("{key}", key)
    room = length - len(language.encode(f"{prompt.before}{needle}{prompt.question} {'0' * DIGITS}"))
    while room > 0:
        text = language.decode(start, tokens[:room]).strip("\ufffd")
        at = round(depth * len(text))
        line = text.find("\n", at) + 1
        at = line if 0 < depth < 1 and line else at
        whole = f"{prompt.before}{text[:at]}{needle}{text[at:]}{prompt.question}"
        over = len(language.encode(f"{whole} {'0' * DIGITS}")) - length
        if over <= 0:
            return whole
        room -= over
    raise UserError(f"{length} tokens do not hold the prompt of a needle.", "--length", "Give more.")


@torch.inference_mode()
def answer(language: Language, prompt: str, candidates: Sequence[str]) -> tuple[str, list[float]]:
    """What a model writes after a prompt, the likeliest token each time, and the losses of candidates.

    The prompt is read once.

    Args:
        language: the model.
        prompt: a text.
        candidates: what may follow it, after a space.

    Returns:
        The text, of as many tokens as the longest candidate and two more; for each candidate the sum of its tokens'
        losses in nats.
    """
    asked = language.encode(prompt)
    told = [language.encode(f"{prompt} {candidate}") for candidate in candidates]
    same = min(_common(asked, ids) for ids in told)
    rows = [asked[same:], *(ids[same:] for ids in told)]
    count = max(len(row) for row in rows[1:]) + 2
    given = len(rows[0])  # 0, unless the space or the key's beginning changes how the prompt's end is tokenized
    decoding = language.decoding()
    logits = decoding.read(np.array([asked[:same]], dtype=np.int64)).expand(len(rows), -1)
    decoding.keep([0] * len(rows))
    losses, ended = [0.0] * len(candidates), False
    for step in range(given + count):
        known = torch.log_softmax(logits.double(), dim=-1)
        if step >= len(rows[0]) and not ended:
            likeliest = int(known[0].argmax())
            ended = likeliest in language.stop
            rows[0] = rows[0] if ended else [*rows[0], likeliest]
        for k, row in enumerate(rows[1:]):
            if step < len(row):
                losses[k] -= float(known[k + 1, row[step]])
        following = [row[step] if step < len(row) else row[-1] if row else asked[-1] for row in rows]
        if step + 1 < given + count:
            logits = decoding.read(np.array(following, dtype=np.int64)[:, None])
    return language.decode(asked, rows[0][given:]), losses


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
