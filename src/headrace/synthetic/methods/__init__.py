"""Methods: how seeds become requests, and answers documents. One file each; a method is a class with

    seeds       how many seeds an item has
    chain(item) the work on an item, see :data:`headrace.synthetic.items.Chain`

Prompts are Jinja templates. They are part of what a source is made from, so a change of wording is another source.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from headrace.recipe.synthetic import Synthetic
from headrace.synthetic.items import Chain, Item


class Method(Protocol):
    """See this package."""

    @property
    def seeds(self) -> int:
        """How many seeds an item has."""

    @property
    def prompts(self) -> tuple[str, ...]:
        """The texts that decide what is asked."""

    def chain(self, item: Item) -> Chain:
        """The work on an item."""


def method_of(config: Synthetic) -> Method:
    """The method that a recipe names."""
    from headrace.synthetic.methods.evol import Evol
    from headrace.synthetic.methods.files import Files
    from headrace.synthetic.methods.oss_instruct import OssInstruct
    from headrace.synthetic.methods.own import Own
    from headrace.synthetic.methods.rephrase import Rephrase
    from headrace.synthetic.methods.self_instruct import SelfInstruct

    kinds: dict[str, Callable[[Synthetic], Method]] = {
        "oss-instruct": OssInstruct,
        "files": Files,
        "self-instruct": SelfInstruct,
        "evol": Evol,
        "rephrase": Rephrase,
        "prompt": Own,
    }
    return kinds[config.method](config)
