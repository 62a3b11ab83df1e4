"""Chat templates in Jinja: run as transformers runs them, in a sandbox that also ends.

A template is code that nobody has read. jinja2's sandbox keeps it from everything but its data
(:mod:`headrace.sequence.jinja_sandbox`), and a budget from going on (:mod:`headrace.sequence.jinja_budget`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from jinja2 import nodes
from jinja2.exceptions import TemplateError, TemplateSyntaxError

from headrace.errors import UserError
from headrace.sequence.jinja_budget import CHARACTERS, PER_CHARACTER, STEPS, Budget, size_of
from headrace.sequence.jinja_sandbox import SaidError, Sandbox

MOST_SOURCE = 1 << 20  # the largest published templates have 30 kB


class Refused(Exception):  # noqa: N818 - a verdict on a conversation, not a fault
    """Why a template does not render a conversation."""


class Rendering(NamedTuple):
    """A rendered conversation.

    Attributes:
        text: the text.
        generated: the ranges of characters inside ``{% generation %}`` blocks, in order.
    """

    text: str
    generated: list[tuple[int, int]]


class Template:
    """A compiled template.

    Args:
        source: the Jinja source.
        where: where it comes from, for messages.
        date: the date that ``strftime_now`` formats, ISO 8601; without one it is undefined.
        what: what the template makes, for messages.

    Attributes:
        source: the source.
        marked: whether it has ``{% generation %}`` marks.
        literals: the texts it contains.

    Raises:
        UserError: it is too large or not a template.
    """

    def __init__(self, source: str, where: str, date: str | None = None, what: str = "chat template") -> None:
        if len(source) > MOST_SOURCE:
            raise UserError(
                f"The {what} has {len(source):,} characters; the most is {MOST_SOURCE:,}.", where, "Shorten it."
            )
        self.source = source
        self._sandbox = Sandbox(date)
        self._sandbox.budget = Budget(STEPS, CHARACTERS)
        try:
            tree = self._sandbox.parse(source)
            self.marked = self._sandbox.marks > 0
            self.literals = [node.data for node in tree.find_all(nodes.TemplateData)]
            self.literals += [str(node.value) for node in tree.find_all(nodes.Const) if isinstance(node.value, str)]
            self._compiled = self._sandbox.from_string(source)
        except TemplateSyntaxError as error:
            raise UserError(f"The {what} is not Jinja: {error.message}.", f"{where}, line {error.lineno}",
                            "Fix the template.") from None  # fmt: skip
        except (TemplateError, RecursionError, ArithmeticError, ValueError, TypeError, SyntaxError) as error:
            raise UserError(f"The {what} cannot be compiled: {error}.", where, "Fix the template.") from None

    def render(self, messages: list[dict[str, Any]], variables: Mapping[str, Any]) -> Rendering:
        """Render a conversation, as ``apply_chat_template`` does.

        Args:
            messages: the messages; plain JSON values.
            variables: what else the template sees, such as ``tools`` and ``bos_token``.

        Raises:
            Refused: the template fails, says that it refuses the conversation, or exceeds its budget.
        """
        size = size_of(messages, CHARACTERS * PER_CHARACTER) + size_of(dict(variables), CHARACTERS * PER_CHARACTER)
        sandbox = self._sandbox
        sandbox.budget = Budget(STEPS + size, CHARACTERS + PER_CHARACTER * size)
        sandbox.written, sandbox.generated = 0, []
        blocks = []
        try:
            context = self._compiled.new_context({"messages": messages, **variables})
            for block in self._compiled.root_render_func(context):
                blocks.append(block)
                sandbox.written += len(block)
                sandbox.budget.made(block)
        except SaidError as error:
            raise Refused(f"the template refuses it: {error}"[:300]) from None
        except RecursionError:
            raise Refused("the template calls itself without end") from None
        except MemoryError:
            raise Refused("the template takes too much memory") from None
        except Exception as error:  # templates are code: anything can go wrong in them
            raise Refused(f"the template fails: {error or type(error).__name__}"[:300]) from None
        return Rendering("".join(blocks), sandbox.generated)
