"""Self-Instruct as Alpaca does it (arXiv 2212.10560; tatsu-lab/stanford_alpaca, generate_instruction.py).

A request shows some seed tasks and asks for more like them, several at once. Examples are always seeds, never generated
tasks, so what is asked does not depend on what was answered. A cut-off answer loses its last task only. Alpaca's rules
that contradict writing code ("Write a program", words such as `file`) are left to `unsuitable`.
"""

from __future__ import annotations

import re

from headrace.recipe.synthetic import Synthetic
from headrace.synthetic.items import Ask, Chain, Item, Made, task_and_answer, unusable

PROMPT = """\
You collect tasks for training an assistant, about {{ about }}. Here are {{ seeds | length }} examples:
{% for seed in seeds %}
### Task
{{ seed.task }}
{% if seed.answer %}### Answer
{{ seed.answer }}
{% endif %}{% endfor %}
Write {{ tasks }} further tasks with their answers, in the same form: each begins with a line `### Task`, then the task,
then a line `### Answer`, then the answer. Vary the verbs, the subjects, the kind of task and how it is put: requests,
questions, things to write, to change or to explain. A task states all that is needed to do it; an answer does it
completely. Nothing else is written before, between or after."""

WORDS = 3, 150  # a task has more than the first and at most the second: Alpaca's limits
# Nobody can hear, see or open what a text assistant is given; Alpaca drops tasks with such words.
_TASK = re.compile(
    r"^[ \t]*+#{2,4}+[ \t]*+(?:\d++[.)]?[ \t]*+)?Task[ \t]*+\d*+[ \t]*+:?[ \t]*+\r?$", re.IGNORECASE | re.MULTILINE
)
_ANSWER = re.compile(r"^[ \t]*+#{2,4}+[ \t]*+Answer[ \t]*+\d*+[ \t]*+:?[ \t]*+\r?$", re.IGNORECASE | re.MULTILINE)
SHOWN = 4000  # characters of an example's answer


class SelfInstruct:
    """The method."""

    def __init__(self, config: Synthetic) -> None:
        self._config = config
        self.seeds = config.examples
        self.prompts = (config.prompt or PROMPT,)
        words = "|".join(map(re.escape, config.unsuitable))
        self._unsuitable = re.compile(rf"\b(?:{words})\b", re.IGNORECASE) if words else None

    def chain(self, item: Item) -> Chain:
        """Ask for tasks with their answers."""
        config = self._config
        pairs = [seed.task for seed in item.seeds]
        shown = [{"task": task, "answer": answer[:SHOWN]} for task, answer in pairs]
        reply = yield Ask(self.prompts[0], {"about": config.about, "tasks": config.tasks, "seeds": shown})
        cut = unusable(reply)
        if cut is not None and cut.finding == "failed":
            return [cut]
        pieces = _TASK.split(reply.text)[1:]
        if not pieces:
            return [cut or Made(reply.text, finding="parse", evidence={"error": "no task"})]
        made = [self._task(piece) for piece in pieces[: config.tasks]]
        if cut is not None and len(pieces) <= config.tasks:
            made[-1] = Made(pieces[-1].strip(), finding="truncated", evidence=cut.evidence)
        return made

    def _task(self, piece: str) -> Made:
        parts = _ANSWER.split(piece)
        if len(parts) != 2:
            return Made(piece.strip(), finding="parse", evidence={"error": f"{len(parts) - 1} answers to a task"})
        task, answer = parts[0].strip(), parts[1].strip()
        if not task or not answer:
            return Made(piece.strip(), finding="parse", evidence={"error": "an empty task or answer"})
        made = task_and_answer(task, answer, self._config.chat)
        made.compared = task
        words = len(task.split())
        if not WORDS[0] < words <= WORDS[1]:
            made.finding, made.evidence = "unsuitable", {"words": words, "limit": list(WORDS)}
        elif self._unsuitable is not None and (found := self._unsuitable.search(task)):
            made.finding, made.evidence = "unsuitable", {"word": found[0]}
        return made
