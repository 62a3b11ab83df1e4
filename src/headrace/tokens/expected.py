"""How large a recipe's vocabulary will be, told before any work and without what a tokenizer needs."""

from __future__ import annotations

from pathlib import Path

from headrace.recipe.schema import Recipe


def expected_size(recipe: Recipe) -> tuple[int, list[str]]:
    """The size of a recipe's vocabulary before any work, and what the user should know about it, in sentences.

    It is that to be trained, that in the tokenizer's file, or LLaMA's if the file does not exist yet.

    Raises:
        UserError: as for :func:`headrace.tokens.training.look_at_file`.
    """
    tokenizer = recipe.tokenizer
    if tokenizer is None or tokenizer.train is not None:
        return tokenizer.train.vocab_size if tokenizer and tokenizer.train else 32_000, []
    if tokenizer.ids is not None:
        return tokenizer.ids, []
    if not Path(str(tokenizer.file)).exists():
        return 32_000, [f"The tokenizer is missing: {tokenizer.file}. Assuming LLaMA's size, 32,000."]
    from headrace.tokens.training import look_at_file

    return look_at_file(recipe)
