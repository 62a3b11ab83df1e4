"""OSS-Instruct: a problem and its solution, inspired by a few lines of code (Magicoder, arXiv 2312.02120).

As there, a snippet of 1 to 15 contiguous lines from a drawn place inspires a problem that is understood without it.
"""

from __future__ import annotations

from headrace.recipe.synthetic import Synthetic
from headrace.synthetic.items import Ask, Chain, Item, Made, Seed, task_and_answer, unusable
from headrace.synthetic.parsing import Unparsed, code_blocks, sections

PROMPT = """\
You write exercises for experienced programmers. Let the lines below, taken from somewhere in a larger program, give you
an idea for one; the reader never sees them, so do not refer to them.

{{ snippet }}

Write{% if language %} in {{ language }}{% endif %}, in two sections under exactly these headings:

[Problem]
A complete exercise: the situation, what is to be written, and every name, format and constraint that a solver needs.

[Solution]
A correct solution with a short explanation{% if tests %}, its code in a single fenced block{% endif %}.
{% if tests %}
[Tests]
One fenced block of Python that calls the solution's functions and checks the results with `assert`; no imports of the
solution, no input or output.
{% endif %}"""


class OssInstruct:
    """The method."""

    seeds = 1

    def __init__(self, config: Synthetic) -> None:
        self._config = config
        self.prompts = (config.prompt or PROMPT,)

    def chain(self, item: Item) -> Chain:
        """Ask for a problem and its solution."""
        [seed] = item.seeds
        tests = self._config.tests
        reply = yield Ask(
            self.prompts[0],
            {"snippet": snippet(item, seed, self._config.lines), "language": seed.language, "tests": tests},
        )
        if wrong := unusable(reply):
            return [wrong]
        try:
            problem, solution, *more = sections(reply.text, ["Problem", "Solution", *(["Tests"] if tests else [])])
            made = task_and_answer(problem, solution, self._config.chat)
            if tests:
                made.program, made.tests = _code(solution, "solution"), _code(more[0], "tests")
        except Unparsed as error:
            return [Made(reply.text, finding="parse", evidence={"error": str(error)})]
        made.language, made.compared = seed.language, problem
        return [made]


def _code(text: str, what: str) -> str:
    """The code of a section: what is fenced, all of it if there is no fence and it is not asked for."""
    blocks = [code for _, code in code_blocks(text)]
    if not blocks:
        raise Unparsed(f"no fenced code in the {what}")
    return "\n".join(blocks)


def snippet(item: Item, seed: Seed, most: int) -> str:
    """A drawn number of contiguous lines from a drawn place of a document; lines that are blank do not begin it."""
    lines = seed.text.splitlines()
    starts = [i for i, line in enumerate(lines) if line.strip()]
    if not starts:
        return ""
    first = starts[int(item.draw("place") * len(starts))]
    count = 1 + int(item.draw("lines") * most)
    return "\n".join(lines[first : first + count])
