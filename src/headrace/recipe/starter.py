"""The recipe that ``headrace init`` writes."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from headrace.errors import UserError


def write_starter(folder: Path) -> Path:
    """Write ``recipe.yaml`` into a folder, which is created if missing.

    Returns:
        The path of the recipe.

    Raises:
        UserError: there is already a recipe, or the folder cannot be written.
    """
    path = folder / "recipe.yaml"
    text = (resources.files("headrace.recipe") / "starter.yaml").read_text(encoding="utf-8")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        what = "There is already a recipe here." if path.exists() else "A file already has the folder's name."
        raise UserError(what, str(path), "Move it, or choose another folder: headrace init DIR.") from None
    except OSError as error:
        raise UserError(
            f"The recipe cannot be written: {error.strerror}.", str(path), "Choose another folder."
        ) from None
    return path
