"""Rephrasing: what a document says, said again in another style (WRAP, arXiv 2401.16380).

WRAP mixes rephrased and original documents one to one, which stages do by the sources that they name. `originals` puts
the original in front of its rephrasing in some documents, so that both stand in one context.
"""

from __future__ import annotations

from headrace.recipe.synthetic import Synthetic
from headrace.synthetic.items import Ask, Chain, Item, Made, unusable

WAYS = {
    "encyclopedia": "as an article in an encyclopedia: sober, precise, in well-made sentences",
    "questions": "as a series of questions that a curious reader would ask, each followed by its full answer",
    "tutorial": "as a tutorial that leads a beginner to the matter step by step, with examples",
    "table": "as one or more tables in Markdown, with a sentence before each that says what it shows",
    "simple": "in short, simple sentences that a child of ten understands",
}
PROMPT = """\
Say what the text below says {{ style }}. Keep every fact, number and name; add none that is not there, and do not speak
of the text itself.

{{ text }}

Answer with the new text alone."""


class Rephrase:
    """The method."""

    seeds = 1

    def __init__(self, config: Synthetic) -> None:
        self._config = config
        ways = tuple(WAYS[name] for name in config.styles if name in WAYS)
        self.prompts = (config.prompt or PROMPT, *ways)

    def chain(self, item: Item) -> Chain:
        """Ask for one rephrasing, in a drawn style."""
        [seed] = item.seeds
        styles = self._config.styles
        style = styles[int(item.draw("style") * len(styles))]
        reply = yield Ask(self.prompts[0], {"style": WAYS.get(style, style)})
        if wrong := unusable(reply):
            return [wrong]
        text = reply.text.strip()
        if not text:
            return [Made("", finding="parse", evidence={"error": "an empty answer"})]
        with_original = item.draw("original") < self._config.originals
        told = {"style": style, **({"original": True} if with_original else {})}
        whole = f"{seed.text}\n\n{text}" if with_original else text
        return [Made(whole, language=seed.language, about=told, compared=text)]
