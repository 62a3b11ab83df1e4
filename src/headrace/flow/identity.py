"""An artifact's identity: the hash of everything that determines its bytes, which also names it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import orjson
import xxhash


class Identified(ABC):
    """Something whose bytes are determined by its kind, its class's version, its parameters and its inputs."""

    kind: ClassVar[str]
    VERSION: ClassVar[int]
    stage: str | None = None

    @abstractmethod
    def params(self) -> dict[str, Any]:
        """What determines the artifact's bytes besides its inputs: JSON values only; no paths, hosts or times."""

    @abstractmethod
    def inputs(self) -> Mapping[str, Identified]:
        """What this is built from, by role."""

    @cached_property
    def identity(self) -> str:
        """32 hexadecimal digits: the hash of kind, version, parameters and the inputs' identities."""
        inputs = {role: need.identity for role, need in self.inputs().items()}
        what = [self.kind, self.VERSION, self.params(), inputs]
        return xxhash.xxh3_128_hexdigest(orjson.dumps(what, option=orjson.OPT_SORT_KEYS))

    @property
    def name(self) -> str:
        """The folder name: ``<kind>[-<stage>]-<first 8 digits of the identity>``."""
        return "-".join([self.kind, *([self.stage] if self.stage else []), self.identity[:8]])
