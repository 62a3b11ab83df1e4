"""What is wrong with what was made: findings, in order of precedence.

=========== ==================================================================================
failed      the server gave no answer
truncated   the answer was cut off
parse       the answer does not have what was asked for
unsuitable  a task is too short, too long, or contains a word that the recipe rules out
repeats     the answer ends in a loop
tests       the program fails its tests in the sandbox, or has none that can run
copied      it repeats its seeds
duplicate   it equals an earlier one
similar     it is too similar to an earlier one
=========== ==================================================================================

All but ``failed``, which has no text, become documents with the verdict ``synthetic:<finding>``.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence

import xxhash

from headrace.evaluate.sandbox import Job
from headrace.recipe.synthetic import Synthetic
from headrace.synthetic.items import Made, Seed
from headrace.synthetic.similar import Similar, words

NGRAM = 8  # words: long enough that two texts on one subject rarely share one by chance
TAIL = 4000  # characters at the end that are searched for a loop
# Fewer repetitions, or a shorter loop, also occur in tables, in code and in verse.
TIMES, LOOP = 5, 200


class Judge:
    """Judges what is made, in order.

    Args:
        config: the recipe's section.
    """

    def __init__(self, config: Synthetic) -> None:
        self._config = config
        self._seen: dict[int, int] = {}
        limit = config.similarity
        self._similar = None if limit is None else Similar(limit)
        self._numbers: list[int] = []  # of those in the index

    def judge(self, made: Made, seeds: Sequence[Seed], number: int) -> None:
        """Give what was made its finding, if it has none and anything is wrong with it.

        Args:
            made: as parsed.
            seeds: what inspired it.
            number: its number, by which evidence names it.
        """
        if made.finding is not None:
            return
        if (loop := looping(made.text)) is not None:
            made.finding, made.evidence = "repeats", loop
        elif (copy := self._copied(made, seeds)) is not None:
            made.finding, made.evidence = "copied", copy
        else:
            self._compare(made, number)

    def _copied(self, made: Made, seeds: Sequence[Seed]) -> dict[str, object] | None:
        limit = self._config.copied
        if limit is None:
            return None
        new = made.text if made.compared is None or "original" not in made.about else made.compared
        grams = _grams(new)
        shares = [(len(grams & _grams(seed.text)) / len(grams), seed.id) for seed in seeds] if grams else []
        share, seed = max(shares, default=(0.0, ""))
        return {"share": round(share, 4), "seed": seed, "limit": limit} if share > limit else None

    def _compare(self, made: Made, number: int) -> None:
        """Compare with everything before; what is like nothing else is remembered."""
        content = xxhash.xxh3_64_intdigest(made.content)
        before = self._seen.setdefault(content, number)
        if before != number:
            made.finding, made.evidence = "duplicate", {"of": before}
        elif self._similar is not None:
            text = made.text if made.compared is None else made.compared
            nearest = self._similar.nearest(text)
            if nearest is not None:
                rouge, at = nearest
                made.finding = "similar"
                made.evidence = {
                    "rouge_l": round(rouge, 4), "to": self._numbers[at], "limit": self._config.similarity
                }  # fmt: skip
            else:
                self._similar.add(text)
                self._numbers.append(number)


def _grams(text: str) -> set[tuple[str, ...]]:
    found = words(text)
    return set(zip(*(found[i:] for i in range(NGRAM)), strict=False))


def looping(text: str) -> dict[str, object] | None:
    """The loop that a text ends in: the same characters at least ``TIMES`` times, ``LOOP`` characters in all."""
    tail = text[-TAIL:].rstrip()[::-1]
    borders = [0] * len(tail)  # the prefix function of Knuth, Morris and Pratt
    longest = 0
    for i in range(1, len(tail)):
        k = borders[i - 1]
        while k and tail[i] != tail[k]:
            k = borders[k - 1]
        borders[i] = k + (tail[i] == tail[k])
        period = i + 1 - borders[i]
        if i + 1 >= max(LOOP, TIMES * period):
            longest = i + 1
    if not longest:
        return None
    period = longest - borders[longest - 1]
    return {"loop": tail[:period][::-1][:80], "times": longest // period}


def job_of(program: str, tests: str) -> Job | str:
    """The job that runs a program against its tests, or why there can be none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        try:
            defined = _defined(ast.parse(program))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            return f"the program is not Python: {error}"
        try:
            tree = ast.parse(tests)
            used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            return f"the tests are not Python: {error}"
    if not any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
        return "the tests assert nothing"
    names = tuple(sorted(defined & used))
    return Job(program, tests, names=names) if names else "the tests use nothing of the program"


def _defined(tree: ast.Module) -> set[str]:
    """The names that a module defines at its top level."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}
    return names
