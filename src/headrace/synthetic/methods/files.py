"""Whole files of code, inspired by some lines of a good one.

Arctic-SnowCoder (arXiv 2409.02326, 2.3) adapts OSS-Instruct so that the model writes documents that solve problems in
code rather than questions with answers. It prints no prompt: this one is ours.
"""

from __future__ import annotations

from headrace.recipe.synthetic import Synthetic
from headrace.synthetic.items import Ask, Chain, Item, Made, unusable
from headrace.synthetic.methods.oss_instruct import snippet
from headrace.synthetic.parsing import Unparsed, only_code

PROMPT = """\
Below are some lines from a{% if language %} {{ language }}{% endif %} file. Take an idea from them, and write another
file, complete and of professional quality, that solves a practical problem of your choice from the same field.

{{ snippet }}

The file stands alone: it begins with a comment that states the problem and how it is solved, and needs nothing that is
not in it or in the standard library. Names say what things are; errors and edge cases are dealt with; nothing is left
to be filled in. Answer with the file alone, in a single fenced block{% if language %} of {{ language }}{% endif %}."""

# What languages are called in fences, where that is not their name.
ALSO = {
    "c++": "cpp", "c#": "csharp", "shell": "bash", "javascript": "js", "typescript": "ts", "python": "py",
    "jupyter notebook": "python", "golang": "go", "kotlin": "kt", "ruby": "rb", "rust": "rs",
}  # fmt: skip


class Files:
    """The method."""

    seeds = 1

    def __init__(self, config: Synthetic) -> None:
        self._config = config
        self.prompts = (config.prompt or PROMPT,)

    def chain(self, item: Item) -> Chain:
        """Ask for a file."""
        [seed] = item.seeds
        reply = yield Ask(
            self.prompts[0], {"snippet": snippet(item, seed, self._config.lines), "language": seed.language}
        )
        if wrong := unusable(reply):
            return [wrong]
        try:
            tag, code = only_code(reply.text)
        except Unparsed as error:
            return [Made(reply.text, finding="parse", evidence={"error": str(error)})]
        if tag and seed.language and not same_language(tag, seed.language):
            told = {"error": "another language than was asked for", "asked": seed.language, "answered": tag}
            return [Made(code, language=tag, finding="parse", evidence=told)]
        return [Made(code, language=seed.language, compared=code)]


def same_language(tag: str, language: str) -> bool:
    """Whether the tag of a fence names a language."""
    names = {tag.lower(), ALSO.get(tag.lower(), "")}, {language.lower(), ALSO.get(language.lower(), "")}
    return not (names[0] & names[1]).isdisjoint(names[0] - {""})
