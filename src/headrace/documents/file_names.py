"""What a file's name says about it: records in some format, text in some language, or something that is not read."""

from __future__ import annotations

import os

# Files of records.
SUFFIXES = {
    ".jsonl": "jsonl",
    ".jsonlines": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".ipc": "arrow",
    ".feather": "arrow",
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd", ".xz": "xz", ".bz2": "bzip2"}
UNREAD = {
    **dict.fromkeys((".zip", ".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".7z", ".rar", ".jar", ".whl"), "an archive"),
    **dict.fromkeys((".lz4", ".br", ".lz", ".lzma", ".lzo", ".sz", ".z"), "compressed in a way that is not read"),
}
# Language names as in The Stack (StarCoder's corpus); a source's own `language` takes precedence.
LANGUAGES = {
    ".c": "c", ".h": "c", ".cc": "c++", ".cpp": "c++", ".hpp": "c++", ".cu": "cuda", ".cs": "c-sharp", ".css": "css",
    ".go": "go", ".htm": "html", ".html": "html", ".java": "java", ".js": "javascript", ".mjs": "javascript",
    ".jl": "julia", ".kt": "kotlin", ".lua": "lua", ".md": "markdown", ".php": "php", ".py": "python",
    ".pyi": "python", ".r": "r", ".rb": "ruby", ".rs": "rust", ".rst": "restructuredtext", ".scala": "scala",
    ".sh": "shell", ".sql": "sql", ".swift": "swift", ".tex": "tex", ".ts": "typescript", ".tsx": "typescript",
    ".xml": "xml", ".yaml": "yaml", ".yml": "yaml",
}  # fmt: skip
# Other text files: suffixes from GitHub's linguist that are only used for text.
_TEXT = frozenset({
    ".adb", ".ads", ".ada", ".asciidoc", ".adoc", ".asm", ".s", ".awk", ".bas", ".bash", ".zsh", ".fish", ".bat",
    ".cmd", ".ps1", ".bib", ".cfg", ".conf", ".ini", ".toml", ".clj", ".cljs", ".cmake", ".coffee", ".cxx", ".c++",
    ".hh", ".hxx", ".cuh", ".d", ".dart", ".diff", ".patch", ".dockerfile", ".el", ".elm", ".erl", ".hrl", ".ex",
    ".exs", ".f", ".f90", ".f95", ".for", ".frag", ".vert", ".glsl", ".fs", ".fsi", ".fsx", ".gradle", ".groovy",
    ".graphql", ".hs", ".lhs", ".idr", ".ipynb", ".jsx", ".kts", ".lean", ".less", ".lisp", ".lsp", ".log", ".m",
    ".mm", ".mk", ".ml", ".mli", ".markdown", ".mdx", ".mips", ".nim", ".nix", ".org", ".pas", ".pl", ".pm", ".po",
    ".pot", ".pro", ".proto", ".properties", ".pug", ".purs", ".pyx", ".pxd", ".pxi", ".rkt", ".rmd", ".sas", ".sass",
    ".scss", ".scm", ".sml", ".sol", ".srt", ".sty", ".cls", ".svelte", ".sv", ".svh", ".tcl", ".text", ".tf",
    ".thrift", ".txt", ".v", ".vb", ".vhd", ".vhdl", ".vim", ".vue", ".xhtml", ".xsl", ".xslt", ".yacc", ".y", ".l",
    ".zig",
})  # fmt: skip
_NAMES = frozenset({
    "dockerfile", "makefile", "gnumakefile", "rakefile", "gemfile", "cmakelists.txt", "readme", "license", "licence",
})  # fmt: skip


# Files that describe the records next to them.
_ABOUT = frozenset({"readme", "license", "licence", "notice", "citation", "changelog", "contributing"})


def suffixes(name: str) -> tuple[str, str | None]:
    """The suffix without that of the compression, in lower case, and the compression: ``a.jsonl.gz`` -> (``.jsonl``,
    ``gzip``)."""
    stem, last = os.path.splitext(name)
    compression = COMPRESSIONS.get(last.lower())
    if compression is None:
        return last.lower(), None
    return os.path.splitext(stem)[1].lower(), compression


def unread(name: str) -> str:
    """What kind of unreadable file this is, such as an archive; '' for other files."""
    return UNREAD.get(os.path.splitext(name)[1].lower(), UNREAD.get(suffixes(name)[0], ""))


def about(name: str) -> bool:
    """Whether a file describes the files next to it."""
    return os.path.basename(name).partition(".")[0].lower() in _ABOUT


def format_of(name: str, url: str) -> str | None:
    """The format of a file; None if nothing says that it is text.

    Args:
        name: its name.
        url: where it is, because for ``.jl`` the first byte decides between JSON Lines and Julia.
    """
    suffix, compression = suffixes(name)
    if suffix == ".jl":
        return "jsonl" if compression is not None or _begins_with_brace(url) else "text"
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    stem = os.path.basename(name if compression is None else os.path.splitext(name)[0]).lower()
    return "text" if suffix in LANGUAGES or suffix in _TEXT or stem in _NAMES else None


def _begins_with_brace(url: str) -> bool:
    try:
        with open(url, "rb") as stream:
            return stream.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
    except OSError:
        return False
