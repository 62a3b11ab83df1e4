"""Code tasks, from prompts to pass@k: completions, their verdicts, and a summary.

    NAME-<hash>/
        settings.json      everything that decides the bytes of the others; the hash is of this
        completions.jsonl  a line per sample, in the order in which they were generated
        results.jsonl      a line per sample with its verdict and time, by task and sample
        summary.json       pass@k with confidence intervals; written last

Both logs are only ever appended to, in an order that depends on the settings alone: after a kill, what is complete is
kept, and the files end up the same byte for byte, but for ``seconds``, for any number of workers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
import xxhash

from headrace.evaluate.generation import generate
from headrace.evaluate.identified import Identified
from headrace.evaluate.language import Language
from headrace.evaluate.log import Log
from headrace.evaluate.pass_at_k import interval, pass_at_k
from headrace.evaluate.sandbox import Limits, Sandbox, Verdict
from headrace.evaluate.tasks import Task
from headrace.flow.keys import salt
from headrace.flow.lock import lock
from headrace.flow.storage import write_json

COMPLETIONS, RESULTS, SUMMARY, SETTINGS = "completions.jsonl", "results.jsonl", "summary.json", "settings.json"
# Samples generated at once. Part of the settings: sums over another number of rows round differently. On one core, 16
# samples of a prompt take 0.48 s together and 2.07 s one by one; 16 prompts of 60 to 200 tokens 1.57 s and 1.93 s (24
# tokens each, 6.8 M parameters).
ROWS = 32
# Tokens whose text is searched for stop words, the longest of which has 9 characters; a stop word that is missed here
# only lets a completion run on, as it is cut afterwards.
_TAIL = 12

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is, and how much there is."""


@dataclass(frozen=True)
class Settings(Identified):
    """What decides an evaluation's results.

    Attributes:
        model: digest of model and tokenizer.
        tasks: digest of the tasks.
        samples: completions for each task.
        temperature: 0 for the most likely tokens.
        top_p: as for :func:`headrace.evaluate.generation.generate`.
        tokens: the most tokens of a completion.
        seed: of the draws.
        limits: of each program.
        rows: samples generated at once.
    """

    model: str
    tasks: str
    samples: int
    temperature: float
    top_p: float
    tokens: int
    seed: int
    limits: Limits
    rows: int = ROWS


def digest(tasks: Sequence[Task]) -> str:
    """A hash of everything that tasks consist of."""
    return xxhash.xxh3_128_hexdigest(orjson.dumps([asdict(task) for task in tasks]))


def evaluate(
    language: Callable[[], Language],
    tasks: Sequence[Task],
    settings: Settings,
    folder: Path,
    sandbox: Sandbox,
    ks: Sequence[int],
    workers: int,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Evaluate a model, or go on where an evaluation with the same settings was stopped.

    Args:
        language: gives the model; not called if all completions are there.
        tasks: what to solve.
        settings: how.
        folder: where to; created.
        sandbox: entered.
        ks: for pass@k; at most ``settings.samples``.
        workers: programs run at once.
        progress: hears how far it is.

    Returns:
        ``{"tasks", "samples", "pass@k": {k: {"value", "low", "high"}}, "statuses": {status: samples}, "isolation"}``.

    Raises:
        UserError: another evaluation is using the folder, or it cannot be written.
    """
    with lock(folder):
        if not (folder / SETTINGS).exists():
            write_json(folder / SETTINGS, asdict(settings))
        completions = _complete(language, tasks, settings, folder, progress)
        passed = _judge(tasks, completions, folder, sandbox, workers, progress)
        counts = [settings.samples] * len(tasks)
        correct = [sum(status == "passed" for status in passed[task.id]) for task in tasks]
        summary: dict[str, Any] = {"tasks": len(tasks), "samples": settings.samples, "pass@k": {}}
        for k in ks:
            values = pass_at_k(counts, correct, k)
            low, high = interval(values)
            summary["pass@k"][str(k)] = {"value": float(values.mean()), "low": low, "high": high}
        statuses = Counter(status for task in tasks for status in passed[task.id])
        summary |= {"statuses": dict(sorted(statuses.items())), "isolation": sandbox.how}
        write_json(folder / SUMMARY, summary)
    return summary


def _complete(
    language: Callable[[], Language], tasks: Sequence[Task], settings: Settings, folder: Path, progress: Progress
) -> dict[tuple[str, int], str]:
    """Generate the completions that are not there yet; returns all."""
    # By length, so that the rows of a batch read prompts and write at the same time.
    order = sorted(range(len(tasks)), key=lambda i: (len(tasks[i].prompt), i))
    wanted = [(i, sample) for i in order for sample in range(settings.samples)]
    batches = [wanted[at : at + settings.rows] for at in range(0, len(wanted), settings.rows)]
    log = Log(folder / COMPLETIONS, [{"task_id": tasks[i].id, "sample": sample} for i, sample in wanted])
    whole = len(log.lines) // settings.rows * settings.rows
    log.cut(len(wanted) if len(log.lines) >= len(wanted) else whole)
    left = batches[-(-len(log.lines) // settings.rows) :]
    model = language() if left else None
    for batch in left:
        assert model is not None
        progress("completions", len(log.lines), len(wanted))
        texts = _write(model, [tasks[i] for i, _ in batch], [sample for _, sample in batch], settings)
        told = [
            {"task_id": tasks[i].id, "sample": sample, "completion": text}
            for (i, sample), text in zip(batch, texts, strict=True)
        ]
        log.append(told)
    progress("completions", len(wanted), len(wanted))
    return {(line["task_id"], line["sample"]): line["completion"] for line in log.lines}


def _write(language: Language, tasks: Sequence[Task], samples: Sequence[int], settings: Settings) -> Iterator[str]:
    """One batch of completions, cut at their stop words."""
    prompts = [language.encode(task.prompt) for task in tasks]
    count = settings.tokens
    if language.longest is not None:
        count = min(count, language.longest // 2)
        prompts = [prompt[-(language.longest - count) :] for prompt in prompts]

    def ended(row: int, tokens: list[int]) -> bool:
        tail = language.decode(prompts[row], tokens[-_TAIL:])
        return any(word in tail for word in tasks[row].stop)

    keys = [salt(settings.seed, "evaluate", task.id, sample) for task, sample in zip(tasks, samples, strict=True)]
    written = generate(
        language.decoding(), prompts, count, keys, settings.temperature, settings.top_p, language.stop, ended
    )
    return (
        task.cut(language.decode(prompt, tokens)) for task, prompt, tokens in zip(tasks, prompts, written, strict=True)
    )


def _judge(
    tasks: Sequence[Task],
    completions: dict[tuple[str, int], str],
    folder: Path,
    sandbox: Sandbox,
    workers: int,
    progress: Progress,
) -> dict[str, list[str]]:
    """Run the completions that have no verdict yet; returns the statuses of each task's samples."""
    samples = len(completions) // len(tasks)
    wanted = [(task, sample) for task in tasks for sample in range(samples)]
    log = Log(folder / RESULTS, [{"task_id": task.id, "sample": sample} for task, sample in wanted])
    # Small models write the same completion many times; it is run once.
    verdicts: dict[tuple[str, str], Future[Verdict]] = {}
    with ThreadPoolExecutor(max(1, workers)) as pool:
        try:
            for task, sample in wanted[len(log.lines) :]:
                key = (task.id, completions[task.id, sample])
                if key not in verdicts:
                    verdicts[key] = pool.submit(sandbox.run, task.attempt(key[1]))
            for task, sample in wanted[len(log.lines) :]:
                completion = completions[task.id, sample]
                verdict = verdicts[task.id, completion].result()
                line = {"task_id": task.id, "sample": sample, "passed": verdict.status == "passed"}
                log.append([{**line, **asdict(verdict), "completion": completion}])
                progress("programs", len(log.lines), len(wanted))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    found: dict[str, list[str]] = {}
    for line in log.lines:
        found.setdefault(line["task_id"], []).append(line["status"])
    return found
