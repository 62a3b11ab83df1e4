"""Evol-Instruct: a task is made harder in one of four ways, or replaced by a rarer one, then answered.

WizardLM (arXiv 2304.12244; nlpxucan/WizardLM, Evol_Instruct) draws one of four ways in depth (more constraints, deeper,
more concrete, more steps of reasoning) and one in breadth. As there, rewriting adds 10 to 20 words.
"""

from __future__ import annotations

from headrace.recipe.synthetic import Synthetic
from headrace.synthetic.items import Ask, Chain, Item, Made, task_and_answer, unusable

WAYS = {
    "constraints": "Add one more condition or requirement that it must meet.",
    "deeper": "Ask for more depth and breadth: what it touches on in passing becomes part of the question.",
    "concrete": "Replace what is general in it by something specific.",
    "reasoning": "If a few simple steps of thought solve it, make it need several that build on each other.",
}
REWRITE = """\
Rewrite the task below so that it is somewhat harder, yet can still be understood and done by a person who knows the
field. {{ way }} Add 10 to 20 words; leave out nothing, such as code, tables or data, that belongs to it.

{{ task }}

Answer with the rewritten task alone."""
BREADTH = """\
The task below gives you the field and the level of difficulty. Invent another task in the same field, of about the same
length and difficulty, but of a kind that is met more rarely. It must be possible to do it with text alone.

{{ task }}

Answer with the new task alone."""
ANSWER = "{{ task }}"


class Evol:
    """The method."""

    seeds = 1
    prompts = (REWRITE, BREADTH, ANSWER, *WAYS.values())

    def __init__(self, config: Synthetic) -> None:
        self._config = config

    def chain(self, item: Item) -> Chain:
        """Make a task over, as often as asked, and have the last one answered."""
        task = item.seeds[0].task[0]
        names, ways = [*WAYS, "breadth"], []
        for turn in range(self._config.rounds):
            name = names[int(item.draw("way", turn) * len(names))]
            ways.append(name)
            reply = yield Ask(BREADTH if name == "breadth" else REWRITE, {"task": task, "way": WAYS.get(name, "")})
            if wrong := unusable(reply):
                return [wrong]
            new = reply.text.strip()
            if not new or new == task:
                said = "the task was not changed" if new else "an empty task"
                return [Made(reply.text, finding="parse", evidence={"error": said, "way": name})]
            task = new
        reply = yield Ask(ANSWER, {"task": task})
        if wrong := unusable(reply):
            return [wrong]
        if not reply.text.strip():
            return [Made(task, finding="parse", evidence={"error": "an empty answer"})]
        made = task_and_answer(task, reply.text.strip(), self._config.chat)
        made.compared, made.about, made.language = task, {"ways": ways}, item.seeds[0].language
        return [made]
