"""Format numbers for people, with units."""

from __future__ import annotations

_LARGE = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k"))
_BYTES = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def whole(n: float) -> str:
    """A full count: 1,234,567."""
    return f"{int(n):,}"


def short(n: float) -> str:
    """A count to three digits: 987, 12.3 k, 345 B."""
    return _scaled(n, _LARGE, "")


def size(n: float) -> str:
    """Bytes to three digits: 12.3 MB (powers of ten)."""
    return _scaled(n, _BYTES, "B")


def _scaled(n: float, units: tuple[tuple[int, str], ...], none: str) -> str:
    for unit, name in units:
        # 999,950 is 1 M, not 1000 k
        if abs(n) >= 0.9995 * unit:
            value = n / unit
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {name}"
    return f"{n:g} {none}".rstrip() if n == int(n) else f"{n:.1f} {none}".rstrip()


def round_number(n: float) -> str:
    """A round number, as on an axis: 500 k, 2 M, 2.5 M."""
    text = short(n)
    number, _, unit = text.partition(" ")
    return f"{float(number):g} {unit}".rstrip()


def percent(part: float, whole: float) -> str:
    """A share: 12.3 %; under 0.1 % if small but not zero; 0 % if zero."""
    if not whole or not part:
        return "0 %"
    share = 100 * part / whole
    if share < 0.1:
        return "< 0.1 %"
    if 99.95 <= share < 100:
        return "> 99.9 %"
    return f"{share:.1f} %" if share < 99.95 else "100 %"


def duration(seconds: float) -> str:
    """A duration: 0.4 s, 12 s, 4 min 02 s, 2 h 05 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def epochs(n: float) -> str:
    """Passes over a source: 1 epoch, 2 epochs, 0.25 epochs."""
    text = f"{n:.3g}"
    return f"{text} epoch{'' if text == '1' else 's'}"


def passes(n: float, slice_: tuple[float, float] = (0.0, 1.0)) -> str:
    """Passes over a slice of a source: 2 epochs, 1 epoch of 10 %."""
    share = slice_[1] - slice_[0]
    return epochs(n) if share >= 1 else f"{epochs(n)} of {100 * share:.3g} %"


def counted(n: int, one: str, many: str = "") -> str:
    """A count with its noun: 1 document, 12 documents."""
    return f"{whole(n)} {one if n == 1 else many or one + 's'}"
