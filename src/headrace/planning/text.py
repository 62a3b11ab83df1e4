"""Format counts, durations and tables as text."""

from __future__ import annotations

from headrace.report.numbers import duration

_YEAR = 365.25 * 86400

_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def tokens_text(n: float, beside: float = 0) -> str:
    """A count with one decimal: 344.8 B, 12.3 M, 987.

    Args:
        n: the count.
        beside: a larger count in the same column, whose unit is used if that leaves a digit to show.
    """
    for unit, name in _UNITS:
        if abs(n) >= unit * 0.99995 or (beside >= unit and abs(n) >= unit / 10):
            return f"{n / unit:.1f} {name}"
    return f"{n:.0f}"


def span(seconds: float) -> str:
    """A duration, in days or years if it is that long."""
    if seconds < 2 * 86400:
        return duration(seconds)
    if seconds < 10 * 86400:
        return f"{seconds / 86400:.2g} days"
    return f"{seconds / 86400:,.0f} days" if seconds < 2 * _YEAR else f"{seconds / _YEAR:,.0f} years"


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a table: the first column left-aligned, all others right-aligned."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = []
    for first, *others in [header, *rows]:
        cells = [first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True))]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines
