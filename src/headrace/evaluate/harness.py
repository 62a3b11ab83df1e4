"""lm-evaluation-harness on a model: its tasks and metrics, our arithmetic."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from headrace.errors import UserError
from headrace.evaluate.generation import generate
from headrace.evaluate.language import Language
from headrace.flow.keys import salt

ROWS = 16  # texts read at once
LONGEST = 2048  # tokens of context, for models without a limit of their own
TOKENS = 256  # most tokens of an answer, unless the task says; the harness's own default


def run_harness(
    language: Callable[[], Language], tasks: Sequence[str], limit: int | None
) -> dict[str, dict[str, float]]:
    """Evaluate tasks of the harness.

    The harness may download their data. Tasks that run code of the model are not run.

    Args:
        language: gives the model.
        tasks: names the harness knows, or files that describe a task.
        limit: only the first documents of each task.

    Returns:
        ``{task: {metric: value}}``.

    Raises:
        UserError: the harness is not installed, knows no such task, or cannot get its data.
    """
    try:
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager
    except ModuleNotFoundError as error:
        raise UserError(
            f"lm-evaluation-harness is not installed ({error.name}).",
            "--tasks lm-eval:...",
            "pip install 'headrace[eval]'",
        ) from None
    files = [Path(task) for task in tasks if Path(task).is_file()]
    manager = TaskManager(include_path=[str(file.parent) for file in files] or None)
    names = [_name(Path(task)) if Path(task) in files else task for task in tasks]
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown:
        raise UserError(
            f"lm-evaluation-harness knows no task {unknown[0]!r}.",
            "--tasks",
            "`lm-eval ls tasks` lists those it knows.",
        )
    try:
        told = simple_evaluate(
            model=adapter(language()),
            tasks=names,
            limit=limit,
            task_manager=manager,
            bootstrap_iters=0,
            log_samples=False,
        )
    except OSError as error:  # no network, no such data set
        raise UserError(
            f"The data of a task cannot be had: {str(error).strip().splitlines()[0]}",
            f"--tasks {', '.join(names)}",
            "Check the network, or name other tasks.",
        ) from None
    return {
        name: {key.removesuffix(",none"): float(value) for key, value in metrics.items() if isinstance(value, float)}
        for name, metrics in told["results"].items()
    }


def _name(file: Path) -> str:
    found = re.search(r"^task:\s*[\"']?([^\s\"']+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise UserError(
            "This file describes no task of lm-evaluation-harness.", str(file), "It needs a line `task: NAME`."
        )
    return found[1]


def adapter(language: Language) -> Any:
    """The harness's ``LM`` over a model."""
    from lm_eval.api.model import LM

    class Adapter(LM):
        """Answers the harness's three kinds of requests."""

        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            """log P(continuation | context), and whether it is what the model would have written greedily."""
            return likelihoods(language, [_pair(language, *one.args) for one in requests])

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
            """log P(text), in windows as long as the model reads."""
            size = language.longest or LONGEST
            windows, of = [], []
            for number, one in enumerate(requests):
                tokens = language.encode(one.args[0])
                for start in range(1, len(tokens), size):
                    windows.append((tokens[start - 1 : start], tokens[start : start + size]))
                    of.append(number)
            totals = [0.0] * len(requests)
            for number, (value, _) in zip(of, likelihoods(language, windows), strict=True):
                totals[number] += value
            return totals

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            """What the model writes until one of some texts."""
            return [_written(language, number, *one.args) for number, one in enumerate(requests)]

    return Adapter()


def _pair(language: Language, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """The tokens of both. Spaces between them go to the continuation, where tokenizers have them."""
    context, continuation = context.rstrip(), context[len(context.rstrip()) :] + continuation
    before = language.encode(context)
    return before, language.encode(context + continuation)[len(before) :]


@torch.no_grad()
def likelihoods(language: Language, pairs: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
    """For each context and continuation: log P(continuation | context) in nats, and whether it is greedy."""
    out: list[tuple[float, bool]] = [(0.0, True)] * len(pairs)
    size = language.longest or LONGEST
    order = sorted(range(len(pairs)), key=lambda i: -sum(map(len, pairs[i])))
    for at in range(0, len(order), ROWS):
        some = order[at : at + ROWS]
        rows = [(pairs[i][0] + pairs[i][1])[-(size + 1) :] for i in some]
        # Padding stands on the right, where nothing that counts looks.
        padded = [row[:-1] + [0] * (len(rows[0]) - len(row)) for row in rows]
        logits = language.logits(torch.tensor(padded))
        for i, row, scores in zip(some, rows, logits, strict=True):
            count = min(len(pairs[i][1]), len(row) - 1)
            if count == 0:
                continue
            targets = torch.tensor(row[-count:], device=scores.device)
            chosen = scores[len(row) - 1 - count : len(row) - 1].float().log_softmax(dim=-1)
            value = float(chosen.gather(1, targets[:, None]).sum())
            out[i] = (value, bool((chosen.argmax(dim=-1) == targets).all()))
    return out


def _written(language: Language, number: int, context: str, how: dict[str, Any]) -> str:
    until = [how["until"]] if isinstance(how.get("until"), str) else list(how.get("until") or ())
    size = language.longest or LONGEST
    count = min(int(how.get("max_gen_toks", TOKENS)), size // 2)
    prompt = language.encode(context)[-(size - count) :]
    temperature = float(how.get("temperature", 1.0)) if how.get("do_sample") else 0.0

    def ended(_: int, tokens: list[int]) -> bool:
        text = language.decode(prompt, tokens)
        return any(word in text for word in until)

    key = salt(0, "harness", number)
    [tokens] = generate(
        language.decoding(), [prompt], count, [key], temperature, float(how.get("top_p", 1.0)), language.stop, ended
    )
    text = language.decode(prompt, tokens)
    return text[: min((text.find(word) for word in until if word in text), default=len(text))]
