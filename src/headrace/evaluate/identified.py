"""What decides an evaluation's results, with a name for the folder that they are in."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import orjson
import xxhash


@dataclass(frozen=True)
class Identified:
    """Settings of a kind of evaluation."""

    @property
    def identity(self) -> str:
        """A short hash of all of them."""
        return xxhash.xxh3_64_hexdigest(orjson.dumps(asdict(self)))[:8]
