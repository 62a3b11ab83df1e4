"""Documents removed for their license."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import orjson
import pyarrow as pa

from headrace import spdx
from headrace.recipe.licences import Licenses
from headrace.select.verdicts.filters import Removals

Rules = Mapping[str, Licenses]
"""The rules of each source that has any."""


def unlicensed(found: pa.Table, sources: pa.Array, rules: Rules) -> Removals:
    """Remove documents whose license is not permitted in their source.

    Args:
        found: their licenses, with the columns of :data:`headrace.select.licences.columns.SCHEMA`.
        sources: their sources.
        rules: by source.

    Returns:
        The reason ``license`` or null, and as evidence ``{"license", "found", "rule"}`` with ``rule`` the key of the
        recipe that removes it, and ``"by"``, the entry of ``deny`` that matches.
    """
    reasons = np.full(len(sources), None, dtype=object)
    evidence = np.full(len(sources), None, dtype=object)
    columns = (found.column("license").to_pylist(), found.column("found").to_pylist(), sources.to_pylist())
    for row, (license, way, source) in enumerate(zip(*columns, strict=True)):
        rule = rules.get(source)
        told = None if rule is None else refusal(license, rule)
        if told is not None:
            reasons[row] = "license"
            evidence[row] = orjson.dumps({"license": license, "found": way, **told}).decode()
    return Removals(pa.array(reasons, pa.string()), pa.array(evidence, pa.string()))


@lru_cache(maxsize=1 << 14)
def refusal(license: str | None, rule: Licenses) -> dict[str, str] | None:
    """Which key of a rule refuses a license, and by what; None if it is permitted."""
    if license is None or not spdx.is_known(license):
        return {"rule": "unknown"} if rule.removes_unknown else None
    refused = spdx.refused(license, rule.allow, rule.deny)
    if refused is None:
        return None
    key, pattern = refused
    return {"rule": key} if pattern is None else {"rule": key, "by": pattern}
