"""The card of a model: what it is, how to run it, and the ledger of what it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import yaml

from headrace.report.card.card import again, digests, stages
from headrace.report.card.facts import CardFacts
from headrace.report.card.licences import hub_licences, licences, not_claimed
from headrace.report.card.markdown import fenced, table, text
from headrace.report.numbers import counted, short, whole

USE = """from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = AutoModelForCausalLM.from_pretrained(PATH), AutoTokenizer.from_pretrained(PATH)
prompt = tokenizer("def fibonacci(n):", return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=64)[0]))
"""
RELEASED = """Its layout is that of the released CrystalCoder, whose code is not part of transformers: load it with
`trust_remote_code=True`, which takes the code from LLM360/CrystalCoder.
"""


@dataclass(frozen=True)
class TrainedStage:
    """A stage that a model went through.

    Attributes:
        name: the stage.
        steps: optimizer steps.
        tokens: targets read.
        loss_tokens: targets that carried loss.
    """

    name: str
    steps: int
    tokens: int
    loss_tokens: int


def model_card(
    name: str,
    architecture: str,
    parameters: int,
    released: bool,
    trained: Sequence[TrainedStage],
    facts: CardFacts | None,
) -> str:
    """The whole card, in Markdown.

    Args:
        name: the run's.
        architecture: the class of transformers that generates.
        parameters: how many there are.
        released: whether the layout is that of the released CrystalCoder, which transformers has no code for.
        trained: the stages that the model went through, in order.
        facts: about their data; None if it came from sequences in other files alone.
    """
    head = {
        "license": (facts and hub_licences(facts)) or ["unknown"],
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["headrace"],
    }
    tokens = sum(stage.tokens for stage in trained)
    rows = [(text(s.name), whole(s.steps), whole(s.tokens), whole(s.loss_tokens)) for s in trained]
    lead = f"{architecture}, {short(parameters)} parameters, trained on {short(tokens)} tokens in "
    lead += f"{counted(len(trained), 'stage')}. Every figure was counted in the run."
    lines = [
        f"# {text(name)}",
        "",
        lead,
        "",
        "## Use",
        "",
        *(RELEASED.split("\n") if released else fenced(USE, "python")),
        "## Training",
        "",
        *table(["stage", "steps", "tokens", "with loss"], rows),
    ]
    if facts is not None:
        lines += [*stages(facts, None), *licences(facts), *not_claimed(facts), *digests(facts), *again(facts)]
    said = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    return f"---\n{said}---\n\n" + "\n".join(lines).rstrip("\n") + "\n"
