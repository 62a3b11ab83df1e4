"""The exception whose message is for users."""

from __future__ import annotations

from headrace.visible import one_line


class UserError(Exception):
    """Something the user can fix: reported as one short message with exit code 2, never a traceback.

    Args:
        what: what is wrong, in one sentence.
        where: the file, line or recipe key concerned.
        fix: what to do about it.
        found: further lines below the first, if several things are wrong.
    """

    def __init__(self, what: str, where: str = "", fix: str = "", found: tuple[str, ...] = ()) -> None:
        self.what, self.where, self.fix, self.found = what, where, fix, found
        super().__init__(what, where, fix, found)

    def __str__(self) -> str:
        lines = [self.what, *(f"  {line}" for line in self.found)]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.fix:
            lines.append(f"  fix:   {self.fix}")
        return "\n".join(map(one_line, lines))


class MemoryShareError(UserError):
    """Something does not fit in a task's share of the memory.

    The task runs again alone with the whole budget; only if that is not enough is the user told.
    """
