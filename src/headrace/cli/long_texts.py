"""Results on long texts, in the terminal."""

from __future__ import annotations

from typing import Any


def by_position(name: str, told: dict[str, Any]) -> str:
    """Loss by position: a line for each bin."""
    lines = [
        f"{name}: {told['documents']} of {told['long_enough']:,} documents with {told['length'] + 1:,} tokens or more, "
        f"of {told['read']:,}",
        f"  {'tokens before':>15}  {'loss, nats':>10}  standard error",
    ]
    for one in told["positions"]:
        where = f"{one['first']:,}" if one["first"] == one["last"] else f"{one['first']:,}-{one['last']:,}"
        error = "" if one["error"] is None else f"{one['error']:.3f}"
        lines.append(f"  {where:>15}  {one['loss']:>10.3f}  {error:>14}")
    return "\n".join([*lines, f"  {told['path']}"])


def needles(name: str, told: dict[str, Any]) -> str:
    """Needles: for each length a line of the shares found, by depth, and the key's losses."""
    cells = {(cell["length"], cell["depth"]): cell for cell in told["cells"]}
    lengths, depths = (sorted({key[i] for key in cells}) for i in (0, 1))
    head = "".join(f"{f'at {100 * depth:.0f} %':>10}" for depth in depths)
    lines = [f"{name}: {told['trials']} pass keys for each length and depth"]
    for what, title in (
        ("exact", "written"),
        ("first", f"lowest loss of ten candidates (by chance {100 * told['chance']:.0f} %)"),
        ("loss", "loss of the key in nats"),
        ("without", "loss of the key without the needle"),
    ):
        if all(cell[what] is None for cell in cells.values()):
            continue
        lines += [f"  {title}", f"  {'tokens':>10}{head}"]
        shown = _share if what in ("exact", "first") else _loss
        for length in lengths:
            lines.append(f"  {length:>10,}" + "".join(f"{shown(cells[length, depth][what]):>10}" for depth in depths))
    return "\n".join([*lines, f"  {told['path']}"])


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
