"""Which files of a repository an import means."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from functools import cached_property

# Files of the wanted name that are looked at; folders above a file, and steps of a name.
_MOST, _DEPTH = 64, 16
# Paths tried in one repository, so that no names can take longer than about ten seconds.
TRIES = 1 << 24
# Where to look for a path: as it is; in the folders above the importing file; anywhere.
_HERE, _ABOVE, _ANYWHERE = 0, 1, 2
_C = frozenset({"c", "c++", "cuda", "objective-c", "objective-c++"})

_SCRIPTS = (".ts", ".tsx", ".js", ".jsx", ".mjs", ".cjs", ".mts", ".d.ts", ".vue", ".svelte", ".json")
_JVM = (".java", ".kt", ".scala", ".groovy")
# Language -> how a dotted module becomes a path: endings of a file, and of the file that stands for a folder.
_MODULES: dict[str, tuple[str, tuple[str, ...]]] = {
    "python": (".", (".py", "/__init__.py", ".pyi", "/__init__.pyi", ".pyx", ".pxd")),
    **dict.fromkeys(("java", "kotlin", "scala", "groovy"), (".", _JVM)),
    "php": ("\\", (".php",)),
    "haskell": (".", (".hs", ".lhs")),
    "perl": ("::", (".pm",)),
    "lua": (".", (".lua", "/init.lua")),
}
# Language -> endings that an import leaves out.
_PATHS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("javascript", "typescript"), ("", *_SCRIPTS, *(f"/index{s}" for s in (".ts", ".tsx", ".js", ".jsx")))
    ),
    "ruby": ("", ".rb"),
    "css": ("", ".scss", ".css", ".less", ".sass"),
    "tex": ("", ".tex", ".bib"),
}


class Repository:
    """The files of a group, by path.

    Args:
        paths: their paths, ascending; a path may occur more than once, and the first file stands for it.
        languages: of each, see :func:`headrace.sequence.grouping.imports.language_of`.
        declared: of each, the names of what it declares itself as.
    """

    def __init__(self, paths: Sequence[str], languages: Sequence[str], declared: Sequence[Sequence[str]]) -> None:
        self._paths, self._languages, self._declared = paths, languages, declared
        self._files: dict[str, int] = {}
        self._named: dict[str, list[str]] = {}
        for i, path in enumerate(paths):
            if path not in self._files:
                self._files[path] = i
                self._named.setdefault(path.rpartition("/")[2], []).append(path)
        self._left = TRIES

    def meant(self, file: int, name: str) -> list[int]:
        """The files that an import of a file means, none if they are not here.

        Args:
            file: index of the importing file.
            name: from :func:`headrace.sequence.grouping.imports.imports_of`.
        """
        if self._left <= 0:
            return []
        path, language = self._paths[file], self._languages[file]
        folder = path.rpartition("/")[0]
        if language == "go":
            return self._package(name)
        if language == "c-sharp":
            return self._declaring.get(name, [])[:_MOST]
        candidates = self._rust(path, name) if language == "rust" else self._candidates(folder, language, name)
        for wanted, reach in candidates:
            found = self._at(wanted) if reach == _HERE else self._find(folder, wanted, language, reach)
            if found is not None:
                return [found]
        return []

    def _at(self, path: str) -> int | None:
        self._left -= 1
        return self._files.get(path) if self._left > 0 else None

    def _find(self, folder: str, wanted: str, language: str, reach: int) -> int | None:
        """A file with a path below the importing file's folder or one above it, else the one with the shortest path
        that ends with it."""
        above, found = folder, None
        for _ in range(_DEPTH):
            # Python does not look for modules in the folder of a package.
            if language != "python" or f"{above}/__init__.py" not in self._files:
                found = self._at(f"{above}/{wanted}" if above else wanted)
            if found is not None or not above:
                break
            above = above.rpartition("/")[0]
        if found is not None or reach == _ABOVE or self._left <= 0:
            return found
        named = self._named.get(wanted.rpartition("/")[2], ())[:_MOST]
        self._left -= len(named)
        ends = [path for path in named if path.endswith(f"/{wanted}")]
        return self._files[min(ends, key=lambda path: (len(path), path))] if ends else None

    def _candidates(self, folder: str, language: str, name: str) -> Iterator[tuple[str, int]]:
        """Paths to try, and where to look for each."""
        if language in _MODULES and not ("/" in name or (language == "php" and name.endswith(".php"))):
            yield from _module(folder, language, name)
            return
        for prefix in ("package:", "~/", "@/"):
            if name.startswith(prefix):
                rest = name.removeprefix(prefix)
                name = rest.partition("/")[2] if prefix == "package:" else rest
        if language == "php":  # mostly `__DIR__ . '/name'`
            name = f"./{name.lstrip('/')}"
        relative = name.startswith(("./", "../"))
        plain = posixpath.normpath(name.lstrip("/"))
        beside = posixpath.normpath(posixpath.join(folder, name)) if not name.startswith("/") else plain
        bare = language in ("javascript", "typescript") and not relative and "/" not in plain
        if beside.startswith("..") or bare:  # outside the repository; a package
            return
        for ending in _PATHS.get(language, ("",)):
            yield beside + ending, _HERE
        if relative:
            # TypeScript names the file that it will be compiled to.
            if beside.endswith(".js"):
                yield from ((beside[:-3] + ending, _HERE) for ending in (".ts", ".tsx"))
            return
        reach = _ANYWHERE if "/" in plain or language in _C else _ABOVE
        for ending in _PATHS.get(language, ("",)):
            yield from ((f"{root}{plain}{ending}", reach) for root in ("", "include/", "lib/", "src/"))

    def _rust(self, path: str, name: str) -> Iterator[tuple[str, int]]:
        folder, _, last = path.rpartition("/")
        stem = last.removesuffix(".rs")
        own = folder if stem in ("mod", "lib", "main") else posixpath.join(folder, stem)
        if name.startswith("mod "):
            for place in dict.fromkeys((own, folder)):
                module = posixpath.join(place, name[4:])
                yield from ((f"{module}{ending}", _HERE) for ending in (".rs", "/mod.rs"))
            return
        first, *steps = name.split("::")[:_DEPTH]
        if first == "crate":
            root = self._crate(folder)
        elif first == "self":
            root = own
        elif first == "super":
            root = posixpath.dirname(own)
            while steps[:1] == ["super"]:
                root, steps = posixpath.dirname(root), steps[1:]
        else:
            return
        while steps:
            module = posixpath.join(root, *steps)
            yield from ((f"{module}{ending}", _HERE) for ending in (".rs", "/mod.rs"))
            steps = steps[:-1]

    def _crate(self, folder: str) -> str:
        above = folder
        for _ in range(_DEPTH):
            if any(self._at(posixpath.join(above, name)) is not None for name in ("lib.rs", "main.rs")):
                return above
            if not above:
                break
            above = above.rpartition("/")[0]
        return folder

    def _package(self, name: str) -> list[int]:
        """The Go files of a package: of the folder that the longest part of its path names."""
        steps = name.split("/")[-_DEPTH:]
        if len(steps) < 2:
            return []
        for k in range(len(steps)):
            if found := self._folders.get("/".join(steps[k:])):
                return found
        return []

    @cached_property
    def _folders(self) -> dict[str, list[int]]:
        folders: dict[str, list[int]] = {}
        for path, i in self._files.items():
            if self._languages[i] == "go" and not path.endswith("_test.go"):
                held = folders.setdefault(path.rpartition("/")[0], [])
                if len(held) < _MOST:
                    held.append(i)
        return folders

    @cached_property
    def _declaring(self) -> dict[str, list[int]]:
        declaring: dict[str, list[int]] = {}
        for i, names in enumerate(self._declared):
            for name in names:
                held = declaring.setdefault(name, [])
                if len(held) < _MOST:
                    held.append(i)
        return declaring


def _module(folder: str, language: str, name: str) -> Iterator[tuple[str, int]]:
    """Paths of a module: the longest name first, because its last parts may be names in a module."""
    mark, endings = _MODULES[language]
    dots = len(name) - len(name.lstrip(".")) if language == "python" else 0
    steps = [step for step in name[dots:].split(mark) if step][:_DEPTH]
    if not dots:
        for k in range(len(steps), 0, -1):
            # One word is rather a module of the language's own than one that happens to have its name.
            reach = _ANYWHERE if k > 1 else _ABOVE
            yield from (("/".join(steps[:k]) + ending, reach) for ending in endings)
        return
    base = folder.split("/") if folder else []
    if dots - 1 > len(base):
        return
    base = base[: len(base) - (dots - 1)]
    for k in range(len(steps), -1, -1):
        module = "/".join([*base, *steps[:k]])
        if module:
            yield from ((module + ending, _HERE) for ending in endings)
        elif not base:
            yield from ((ending.lstrip("/"), _HERE) for ending in endings if ending.startswith("/"))
