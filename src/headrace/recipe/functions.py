"""User-defined functions in a recipe: where their code is, their parameters, and what happens on errors."""

from __future__ import annotations

import keyword
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import orjson
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from headrace.errors import UserError
from headrace.flow.storage import replacing
from headrace.functions import loading, modules, packages
from headrace.functions.calling import Function
from headrace.functions.signature import Signature, signatures
from headrace.functions.source_text import reference
from headrace.recipe.base import Section, listed, suggest, wrong

CODE = "code"  # the run's folder of copies of user code


class FunctionSection(Section):
    """Your own function, from a file or an installed package; see `docs/extending.md`.

    Its identity is the text of its file, of the modules that the file imports from its own folder, and `with`.
    """

    group: ClassVar[str]
    alternatives: ClassVar = {"package": ("python", "code", "digest"), "python": ("package", "code", "digest")}

    python: str | None = Field(
        default=None,
        description="`FILE:FUNCTION`, such as `measures.py:fertility`, with the file relative to the recipe; with "
        "`code`, the function's name.",
    )
    code: str | None = Field(
        default=None, description="Source text of a module that defines the function, instead of a file."
    )
    package: str | None = Field(default=None, description="The function's entry point name in an installed package.")
    parameters: dict[str, Any] = Field(
        default={}, alias="with", description="Keyword arguments for the function, in addition to the document."
    )
    on_error: Literal["quarantine", "stop"] = Field(
        default="quarantine", description="If the function fails: quarantine the document, or stop the run."
    )
    version: int | str | None = Field(
        default=None,
        description="Change this when something changes that the code does not show, such as a list it reads.",
    )
    digest: str | None = Field(default=None, description="Hash of the code; filled in automatically.")

    @model_validator(mode="before")
    @classmethod
    def _read_code(cls, data: Any) -> Any:
        """Fill in what the code says, unless this is a run's recipe, which holds it already."""
        if callable(data):
            data = {"python": data}
        if isinstance(data, cls):
            return data
        if not isinstance(data, dict):
            raise wrong(f"{data!r} is not a function", "write `{python: FILE:FUNCTION}`")
        if callable(data.get("python")):
            data = {**data, **_from_python(data["python"])}
        ways = [key for key in ("python", "package") if isinstance(data.get(key), str)]
        if len(ways) != 1:
            fix = "write `python: FILE:FUNCTION`, or `package: NAME` for one from an installed package"
            raise wrong("the function has its code in two places" if ways else "the function has no code", fix)
        _check_parameters(data.get("with", {}))
        if data.get("digest") is not None and not cls._lacks(data):
            return data
        try:
            digest, signature = _code(cls.group, data)
        except UserError as error:
            raise wrong(
                f"{error.what.rstrip('.')} ({error.where})" if error.where else error.what, error.fix, ways[0]
            ) from None
        return {**data, "digest": digest, **cls._told(data, signature)}

    @classmethod
    def _lacks(cls, data: dict[str, Any]) -> bool:
        """Whether something else must be read from the code."""
        return False

    @classmethod
    def _told(cls, data: dict[str, Any], signature: Signature | None) -> dict[str, Any]:
        """What else the code says."""
        return {}

    @property
    def label(self) -> str:
        """The function's name in messages: file and function, without folders."""
        return str(self.package) if self.python is None else self.python.rpartition("/")[2]

    @property
    def origin(self) -> str:
        """Where the code is, for messages."""
        if self.package is not None:
            entry = packages.find(self.group, self.package)
            return f"{entry.value} of {packages.release(entry)}"
        return "in the recipe" if self.code is not None else str(locate(self)[0])

    def load(self, run: Path) -> Function:
        """Load the function from the run folder's copy of its code.

        Raises:
            UserError: it cannot be loaded, or its code differs from what the recipe was read with.
        """
        return _loaded(type(self), self.model_dump_json(by_alias=True), run)

    def _load(self, run: Path) -> Function:
        if self.package is not None:
            entry = packages.find(self.group, self.package)
            _same(packages.digest_of(entry), self, entry.value)
            target = loading.load_package(entry)
        elif self.code is not None:
            target = loading.load_text(self.code, str(self.python))
        else:
            path, name = locate(self)
            target = loading.load_file(path, name, read_copy(self, run))
        return Function(target, self.label, self.parameters, self.on_error == "stop")

    def identity(self) -> dict[str, Any]:
        """What determines the function's results: JSON values, no paths."""
        told = {"function": self.label.rpartition(":")[2], "code": self.digest, "with": self.parameters}
        return told if self.version is None else {**told, "version": self.version}


@cache
def _loaded(kind: type[FunctionSection], section: str, run: Path) -> Function:
    """Load a function once per worker, however many tasks call it."""
    return kind.model_validate_json(section)._load(run)


def keep_copy(function: FunctionSection, run: Path) -> None:
    """Copy the code of a function's file into a run folder, ``code/<digest>``, where workers load it from.

    Raises:
        UserError: the file has changed since the recipe was read.
    """
    if function.python is None or function.code is not None:
        return
    path, _ = locate(function)
    files = modules.read_modules(path)
    _same(modules.digest_of(files), function, str(path))
    for name, data in files.items():
        with replacing(run / CODE / str(function.digest) / name) as temporary:
            temporary.write_bytes(data)


def read_copy(function: FunctionSection, run: Path) -> modules.Files:
    """Read a run folder's copy of a function's code.

    Raises:
        UserError: it is missing or has changed.
    """
    folder, (path, _) = run / CODE / str(function.digest), locate(function)
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.py"))
    files = {name: (folder / name).read_bytes() for name in sorted(names, key=lambda name: name != path.name)}
    _same(modules.digest_of(files), function, str(folder))
    return files


def _same(digest: str, function: FunctionSection, where: str) -> None:
    if digest != function.digest:
        raise UserError(
            f"The code of {function.label} has changed since the recipe was read.",
            where,
            "Run again, without `digest` if the recipe sets it: only what depends on the code is redone.",
        )


def locate(function: FunctionSection) -> tuple[Path, str]:
    """The file and name of a function that is defined in a file."""
    assert function.python is not None
    path, _, name = function.python.rpartition(":")
    return Path(path), name


def _code(group: str, data: dict[str, Any]) -> tuple[str, Signature | None]:
    """The digest of the code, and the function's signature."""
    if data.get("package") is not None:
        entry = packages.find(group, data["package"])
        return packages.digest_of(entry), packages.signature_of(entry)
    python, text = data["python"], data.get("code")
    if text is not None:
        files, where, name = {"code": str(text).encode("utf-8", "replace")}, "code", python
    else:
        path, colon, name = python.rpartition(":")
        if not colon or not path.endswith(".py") or "://" in path:
            raise UserError(f"{python!r} is not FILE:FUNCTION.", "", "Write a value such as `measures.py:fertility`.")
        where = path
        files = modules.read_modules(Path(path).absolute())
    known = signatures(modules.parse(next(iter(files.values())), where))
    if name not in known:
        fix = suggest(name, known) or f"At its top level: {', '.join(known) or 'none'}."
        raise UserError(f"There is no function or class {name!r} in the file.", where, fix)
    return modules.digest_of(files), known[name]


def _from_python(function: Any) -> dict[str, Any]:
    try:
        return reference(function)
    except UserError as error:
        raise wrong(error.what, error.fix, "python") from None


def _check_parameters(parameters: Any) -> None:
    if not isinstance(parameters, dict):
        return
    for name in parameters:
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
            raise wrong(f"{name!r} is not a parameter name", "write `with: {level: 2}`", "with")
    try:
        same = orjson.loads(orjson.dumps(parameters)) == parameters
    except TypeError:
        same = False
    if not same:
        raise wrong(
            "a parameter is not a plain value", "use text, numbers, true, false, null, lists and mappings", "with"
        )


class Reader(FunctionSection):
    """Your own reader: a generator that receives an open binary file and yields texts or records."""

    group: ClassVar[str] = "headrace.readers"

    @property
    def key(self) -> str:
        """The name used for this format: the function and its parameters, no path."""
        return f"own:{self.label}" + (f" {orjson.dumps(self.parameters).decode()}" if self.parameters else "")


class Map(FunctionSection):
    """Your own map: takes a document, returns a text or document, before ids are computed."""

    group: ClassVar[str] = "headrace.maps"

    sources: Annotated[tuple[str, ...] | None, BeforeValidator(listed)] = Field(
        default=None, description="Sources to apply it to; null means all except conversations."
    )

    def of(self, name: str, conversations: bool) -> bool:
        """Whether it applies to the documents of a source."""
        return not conversations if self.sources is None else name in self.sources


Type = Literal["bool", "int", "float", "str"]


class Measure(FunctionSection):
    """Your own measure: one value per document, in its own sidecar."""

    group: ClassVar[str] = "headrace.measures"

    type: Type | None = Field(
        default=None, description="Type of the values; null takes it from the function's annotation."
    )

    @classmethod
    def _lacks(cls, data: dict[str, Any]) -> bool:
        return data.get("type") is None

    @classmethod
    def _told(cls, data: dict[str, Any], signature: Signature | None) -> dict[str, Any]:
        if data.get("type") is not None:
            return {}
        if signature is None or signature.returns is None:
            raise wrong(
                "the function does not declare the type of its values",
                "annotate it, as in `def fertility(document) -> float:`, or add `type: float`",
                "type",
            )
        return {"type": signature.returns}


def _named(name: str) -> str:
    if not name.isidentifier() or keyword.iskeyword(name) or not name.isascii():
        raise wrong(f"rules cannot use the name {name!r}", "use letters, digits and _, starting with a letter")
    return name


MeasureName = Annotated[str, AfterValidator(_named)]
"""The name of a measure: an identifier, since rules use it."""


class Rule(Section):
    """Keep the documents for which an expression over measures and columns is true; see `docs/extending.md`."""

    keep: str = Field(
        description="Expression, such as `fertility < 2.5 and language == 'python'`; a missing value never counts as "
        "true."
    )
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$",
        description="Name of the rule; what it removes has the reason `filter:NAME`.",
    )
