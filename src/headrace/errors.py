"""The one exception that a user is meant to read."""

from __future__ import annotations

from headrace.visible import one_line


class UserError(Exception):
    """Something the user can fix: reported as one short message, exit code 2, never a traceback.

    Args:
        what: what is wrong, in one sentence.
        where: the file, line or recipe key it concerns.
        mend: what to do about it.
        found: further lines below the first, when several things are wrong.
    """

    def __init__(self, what: str, where: str = "", mend: str = "", found: tuple[str, ...] = ()) -> None:
        self.what, self.where, self.mend, self.found = what, where, mend, found
        super().__init__(what, where, mend, found)

    def __str__(self) -> str:
        lines = [self.what, *(f"  {line}" for line in self.found)]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.mend:
            lines.append(f"  fix:   {self.mend}")
        return "\n".join(map(one_line, lines))


class MemoryShareError(UserError):
    """A task met something that its share of the memory has no room for.

    It is done again with all of the memory, when no other runs; only if that is not enough does the user hear of it.
    """
