"""The recipe's synthetic sources: documents that a language model writes, inspired by documents of other sources."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

import orjson
from pydantic import BeforeValidator, Field, model_validator

from headrace.recipe.base import Count, Section, listed, wrong
from headrace.recipe.functions import FunctionSection
from headrace.recipe.paths import SIGNED
from headrace.recipe.quality import Best

# Why what was made is not kept, in order of precedence: see :mod:`headrace.synthetic.judge`.
FINDINGS = ("truncated", "parse", "unsuitable", "tests", "repeats", "copied", "duplicate", "similar")

MethodName = Literal["oss-instruct", "files", "self-instruct", "evol", "rephrase", "prompt"]

# Key -> the methods that it says something to.
_OF_METHOD: dict[str, tuple[MethodName, ...]] = {
    "lines": ("oss-instruct", "files"),
    "about": ("self-instruct",),
    "tasks": ("self-instruct",),
    "examples": ("self-instruct",),
    "unsuitable": ("self-instruct",),
    "styles": ("rephrase",),
    "originals": ("rephrase",),
    "rounds": ("evol",),
    "tests": ("oss-instruct",),
    "parser": ("prompt",),
}

MOST = ("max_tokens", "max_completion_tokens")  # the options that limit an answer, by old and by new servers

STYLES = ("encyclopedia", "questions", "tutorial", "table", "simple")


class Price(Section):
    """What the server charges, in dollars for a million tokens."""

    input: float = Field(default=0.0, ge=0, description="For a million tokens of prompts.")
    output: float = Field(default=0.0, ge=0, description="For a million tokens of answers.")


class Rate(Section):
    """What may be sent in a minute."""

    requests: Count | None = Field(default=None, ge=1, description="Requests in a minute.")
    tokens: Count | None = Field(default=None, ge=1, description="Tokens of prompts and answers in a minute.")


class Server(Section):
    """A server with an OpenAI-compatible interface, and how to ask it.

    Only `model`, `api` and `options` decide what is asked; everything else may change between runs.
    """

    url: str | None = Field(
        default=None,
        description="Its address up to `/v1`, such as `http://localhost:8000/v1`; null asks no server, and takes all "
        "answers from `answers`.",
    )
    model: str = Field(min_length=1, description="The model's name, as the server knows it.")
    api: Literal["chat", "completions"] = Field(
        default="chat", description="The endpoint: `/chat/completions`, or `/completions` for a base model."
    )
    key: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Name of the environment variable that holds the API key. The key itself is written nowhere.",
    )
    options: dict[str, Any] = Field(
        default={},
        description="Further fields of each request, such as `{temperature: 0.7, max_tokens: 2048}`; null leaves a "
        "field out that headrace would send.",
    )
    concurrency: int = Field(
        default=64, ge=1, le=4096, description="Most requests at once; fewer while the server shows that it is busy."
    )
    timeout: float = Field(default=600.0, gt=0, description="Seconds until an answer must be complete.")
    retries: int = Field(default=6, ge=0, le=100, description="How often a request is repeated that got no answer.")
    backoff: float = Field(
        default=1.0,
        gt=0,
        description="Seconds before the first repetition; they double with each, up to a minute, and vary by half.",
    )
    rate: Rate = Field(default=Rate(), description="The server's limits, where it does not state them itself.")
    price: Price = Field(default=Price(), description="Its prices, to tell what a run costs.")

    @model_validator(mode="after")
    def _plain(self) -> Server:
        if self.url is not None:
            parts = urlsplit(self.url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise wrong(f"{self.url!r} is not the address of a server", "write `http://localhost:8000/v1`", "url")
            if parts.username or parts.password:
                raise wrong("the address holds a password", "put it in an environment variable named by `key`", "url")
            if SIGNED.search(self.url):
                raise wrong("the address holds a key", "put it in an environment variable named by `key`", "url")
        for name in ("messages", "prompt", "model", "stream", "n"):
            if name in self.options:
                raise wrong(f"{name!r} is not an option", "remove it", f"options.{name}")
        for name, value in self.options.items():
            try:
                orjson.dumps(value)
                json.dumps(value, allow_nan=False).encode()
            except (TypeError, ValueError, RecursionError) as error:
                raise wrong(
                    f"{name!r} cannot be sent as JSON: {error}", "write a plain value", f"options.{name}"
                ) from None
        for name in MOST:
            most = self.options.get(name)
            if most is not None and (type(most) is not int or most < 1):
                raise wrong(f"{most!r} is not a number of tokens", "write `2048`", f"options.{name}")
        return self


class Seeds(Section):
    """The documents that inspire: those that are kept of other sources, in keyed order."""

    sources: Annotated[tuple[str, ...] | None, BeforeValidator(listed)] = Field(
        default=None, description="The sources to take them from; null means all that are read from files."
    )
    where: str | None = Field(
        default=None,
        description="Take only documents for which this is true: an expression over columns and measures, as in "
        "`filters.rules`.",
    )
    quality: Best | None = Field(
        default=None,
        description="Take only the best by an annotator's scores: the `top` share of the text of each language, or "
        "what scores `above`.",
    )
    count: Count | None = Field(default=None, ge=1, description="Take at most so many; they are used in turn.")
    share: float | None = Field(default=None, gt=0, le=1, description="Take this share of those that there are.")
    characters: Count = Field(
        default=12_000, ge=1, description="Longest stretch of a document that is shown, in characters."
    )
    languages: dict[str, float] = Field(
        default={},
        description="Shares of the requests by language of the seed, such as `{python: 0.5}`; the other languages "
        "share the rest in proportion.",
    )

    @model_validator(mode="after")
    def _shares(self) -> Seeds:
        if self.quality is not None and self.quality.tokens is not None:
            raise wrong("the tokens of seeds are not counted", "set `top` or `above`", "quality.tokens")
        if self.count is not None and self.share is not None:
            raise wrong("`count` and `share` both say how many", "remove one", "share")
        if any(not 0 <= share <= 1 for share in self.languages.values()) or sum(self.languages.values()) > 1:
            raise wrong("the shares are not within 0 and 1, or add up to more than 1", "", "languages")
        return self


class Parser(FunctionSection):
    """Your own parser: takes an answer as `{text, seeds}`, returns a text, a record, or a list of these."""

    group: ClassVar[str] = "headrace.parsers"


class Synthetic(Section):
    """A source whose documents a language model writes.

    What is asked follows from these keys, the seeds and the recipe's seed. Every answer is kept in the run folder under
    `answers/`, and nothing is asked twice.
    """

    method: MethodName = Field(
        description="`oss-instruct`: a problem and its solution, inspired by some lines of a seed. `files`: a whole "
        "file of code, inspired likewise. `self-instruct`: tasks like some examples, several in an answer. `evol`: a "
        "seed's task made harder or replaced by a rarer one, and its answer. `rephrase`: a seed said again in another "
        "style. `prompt`: your own."
    )
    server: Server = Field(description="Who is asked.")
    count: Count = Field(ge=1, description="Documents to make, before filters, duplicates and benchmarks remove any.")
    most: float = Field(
        default=2.0,
        ge=1,
        description="Stop after asking this many times `count` requests (of `self-instruct`: for this many tasks).",
    )
    seeds: Seeds = Field(default=Seeds(), description="The documents that inspire.")
    prompt: str | None = Field(
        default=None,
        description="The prompt in Jinja, instead of the method's own; a name that ends in `.jinja` is a file. "
        "It sees `text`, `snippet`, `language`, `path`, `seeds`, `style`, `about`, `tasks`, and `draw`, a number in "
        "[0, 1) of the request's own.",
    )
    system: str | None = Field(default=None, description="The system message; a Jinja template or a `.jinja` file.")
    parser: Parser | None = Field(
        default=None, description="Of `prompt`: your function that reads an answer; null takes it as it is."
    )
    chat: bool = Field(
        default=False, description="Make conversations, a task and its answer, rather than plain texts of both."
    )
    answers: Annotated[tuple[str, ...], BeforeValidator(listed)] = Field(
        default=(), description="Files of answers kept by earlier runs (`RUN/answers/*.jsonl`), to take answers from."
    )
    license: str | None = Field(
        default=None, description="License of the documents; null gives each the licenses of its seeds."
    )
    lines: int = Field(default=15, ge=1, description="Of `oss-instruct` and `files`: most lines of a seed shown.")
    tests: bool = Field(
        default=False,
        description="Of `oss-instruct`: ask for tests too, run the solution against them in the sandbox, and keep "
        "what passes. For Python.",
    )
    about: str = Field(
        default="a wide range of subjects",
        description="Of `self-instruct`: what the tasks are about, such as `building websites with HTML, CSS and "
        "JavaScript`.",
    )
    tasks: int = Field(default=10, ge=1, le=50, description="Of `self-instruct`: tasks to ask for in one request.")
    examples: int = Field(default=3, ge=1, le=20, description="Of `self-instruct`: seeds shown as examples.")
    unsuitable: Annotated[tuple[str, ...], BeforeValidator(listed)] = Field(
        default=(), description="Of `self-instruct`: words that a task must not contain."
    )
    rounds: int = Field(default=1, ge=1, le=8, description="Of `evol`: how often a task is made over.")
    styles: Annotated[tuple[str, ...], BeforeValidator(listed)] = Field(
        default=STYLES,
        min_length=1,
        description=f"Of `rephrase`: the styles, drawn by request: {', '.join(f'`{name}`' for name in STYLES)}; others "
        "are described to the model as they are written.",
    )
    originals: float = Field(
        default=0.0, ge=0, le=1, description="Of `rephrase`: the share of documents that begin with the original."
    )
    similar: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Leave out what is more similar to an earlier one than this, by ROUGE-L (of tasks, their "
        "instructions). Null means 0.7 for `self-instruct`, and no limit for others.",
    )
    copied: float | None = Field(
        default=0.7,
        gt=0,
        le=1,
        description="Leave out what shares more than this part of its 8-grams of words with its seeds.",
    )

    @model_validator(mode="before")
    @classmethod
    def _read_templates(cls, data: Any) -> Any:
        """Replace the names of template files by their content."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        for name in ("prompt", "system"):
            path = data.get(name)
            if isinstance(path, str) and path.endswith(".jinja") and "\n" not in path:
                try:
                    data[name] = Path(path).read_text(encoding="utf-8")
                except (OSError, UnicodeDecodeError) as error:
                    why = getattr(error, "strerror", None) or "it is not UTF-8"
                    raise wrong(f"the file {path} cannot be read: {why}", "fix its path", name) from None
        return data

    @model_validator(mode="after")
    def _agrees(self) -> Synthetic:
        for key, methods in _OF_METHOD.items():
            if key in self.model_fields_set and self.method not in methods:
                raise wrong(f"{key!r} says nothing to the method {self.method!r}", "remove it", key)
        if self.method == "prompt" and not self.prompt:
            raise wrong("the method `prompt` needs a prompt", "write it, or name a `.jinja` file", "prompt")
        if self.method == "evol" and self.prompt is not None:
            raise wrong("`evol` asks several things, each with its own prompt", "remove it", "prompt")
        if self.server.url is None and not self.answers:
            raise wrong("there is neither a server nor answers", "add `server.url` or `answers`", "server.url")
        return self

    @property
    def similarity(self) -> float | None:
        """The limit of ROUGE-L. Alpaca's is 0.7 (tatsu-lab/stanford_alpaca, generate_instruction.py)."""
        return 0.7 if self.similar is None and self.method == "self-instruct" else self.similar

    @property
    def most_items(self) -> int:
        """How many requests (of methods with several: chains of them) there are at most."""
        each = self.tasks if self.method == "self-instruct" else 1
        return max(1, round(self.count * self.most / each))

    def identity(self) -> dict[str, Any]:
        """What decides which requests are made, and what their answers become."""
        left_out = {"server", "answers", "parser", "seeds"}
        own = self.model_dump(
            mode="json", exclude=left_out | {k for k, m in _OF_METHOD.items() if self.method not in m}
        )
        server = {"model": self.server.model, "api": self.server.api, "options": self.server.options}
        seeds = self.seeds.model_dump(mode="json")
        if self.seeds.quality is not None:
            seeds["quality"].pop("annotator")  # an input of the step, which may be named otherwise
        parser = {} if self.parser is None else {"parser": self.parser.identity()}
        return {**own, "server": server, "seeds": seeds, **parser}
