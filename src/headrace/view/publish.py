"""A run as static pages: a folder that can be opened from a disk or published, without a server and without scripts.

The pages are those of the viewer. Links between exported pages are relative; what leads elsewhere, and every form, is
left out, since nobody would answer.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from headrace.errors import UserError
from headrace.flow.lock import lock
from headrace.flow.storage import explaining_os_errors, fsync_folder, local
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import whole
from headrace.train.steps import Steps
from headrace.view import layout
from headrace.view.address import address
from headrace.view.app import loaded, static_files
from headrace.view.quarantine import QUARANTINED
from headrace.view.registry import PAGES, Listed
from headrace.view.target import Target

Exported = tuple[Listed, dict[str, Any]]  # a page with the fields of its query
SAMPLES = 3  # rows and steps of each stage
REMOVED = 25  # documents of each reason: enough to judge a filter by
LARGEST = 16 << 20  # bytes of their pages in all; every reason has one, whatever its size
POLICY = "script-src 'none'; object-src 'none'; base-uri 'none'; form-action 'none'"
WITH_TEXTS = frozenset({"sequence", "step", "removed"})  # where every character is a document's
LEFT_OUT = frozenset({"form", "button", "input", "select", "textarea", "script", "kbd"})
WITHOUT_END = frozenset({"input", "link", "meta", "br", "hr", "img", "col", "wbr"})


def publish(target: Target, out: Path | str) -> int:
    """Write a run's pages: what became of its documents, its stages, samples of rows, steps and removed documents.

    Args:
        target: a run.
        out: the folder to be made.

    Returns:
        The number of pages.

    Raises:
        UserError: this is no run, the folder is not empty, or it cannot be written.
    """
    out = local(out)
    if not target.is_run:
        raise UserError("Only runs are written as pages.", str(target.path), "Give the --out of `headrace run`.")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError("The folder to export to is not empty.", str(out), "Choose another folder, or delete it.")
    for one in (target, target.other):
        if one is not None:
            one.patience = None
    work = out.with_name(f"{out.name}.partial")
    with explaining_os_errors(out), lock(work):
        pages = work / "pages"
        shutil.rmtree(pages, ignore_errors=True)
        (pages / "static").mkdir(parents=True)
        made = _write(target, pages)
        if out.is_dir():
            out.rmdir()
        os.replace(pages, out)
        fsync_folder(out.parent)
        shutil.rmtree(work)
    return made


def _write(target: Target, folder: Path) -> int:
    pages = {page.name: page for page in PAGES if page.serves(target)}
    wanted = {address(page.name, **fields): (page, fields) for page, fields in _pages(target, pages)}
    names = {page.name for page, fields in wanted.values() if not fields}
    menu = [(page.name, page.title) for page in PAGES if page.menu and page.name in names]
    samples = _samples([one for one in wanted.values() if one[0].name in ("sequence", "step")])
    drawn: dict[str, str] = {}
    room = LARGEST
    for fields in _removed(target, pages):
        at = address("removed", **fields)
        if room > 0 or "at" not in fields:
            drawn[at] = _drawn(target, pages["removed"], fields, menu, samples)
            wanted[at] = pages["removed"], fields
            room -= len(drawn[at].encode())
    files: dict[str, str] = {}
    numbers: Counter[str] = Counter()
    for at, (page, fields) in wanted.items():
        numbers[page.name] += bool(fields)
        name = f"{page.name}-{numbers[page.name]}" if fields else page.name
        files[at] = "index.html" if at == "/" else f"{name}.html"
    private = _private(target)
    for at, (page, fields) in wanted.items():
        text = drawn.pop(at, None) or _drawn(target, page, fields, menu, samples)
        hidden = {} if page.name in WITH_TEXTS and fields.get("reason") != QUARANTINED else private
        (folder / files[at]).write_text(rewritten(text, files, hidden), encoding="utf-8")
    for name, (data, _) in static_files().items():
        if name.endswith(".css"):
            (folder / "static" / name).write_bytes(data)
    return len(wanted)


def _drawn(target: Target, listed: Listed, fields: dict[str, Any], menu: list[tuple[str, str]], samples: Markup) -> str:
    """A page as the viewer draws it; the first leads to the samples too."""
    page = listed.page
    query = page.query.model_validate(fields)
    shown = loaded(target, listed, query)
    heading, body = page.heading(query, shown), page.draw(query, shown)
    if listed.name == "overview":
        body = join([body, samples])
    return layout.frame(target.name, heading, body, menu, listed.name, page.styles)


def _samples(pages: list[Exported]) -> Markup:
    """Links to the rows and steps that are there."""
    of: dict[str, list[Markup]] = {}
    for page, fields in pages:
        said = f"step {whole(fields['step'])}" if "step" in fields else f"row {whole(fields.get('row', 0))}"
        of.setdefault(fields["stage"], []).append(element("a", said, href=address(page.name, **fields)))
    lines = [
        element("li", name, ": ", [[", " if i else "", one] for i, one in enumerate(links)])
        for name, links in of.items()
    ]
    return element("section", element("h2", "Samples"), element("ul", lines)) if lines else join([])


def _private(target: Target) -> dict[str, str]:
    """Paths of this machine, as pages have them, and what stands there instead: messages of errors may hold some."""
    runs = [one for one in (target, target.other) if one is not None]
    found = {escape(str(path)): one.name for one in runs for path in (one.path.absolute(), one.path.resolve())}
    return {**found, f"{escape(str(Path.home()))}/": "~/"}


def _pages(target: Target, pages: dict[str, Listed]) -> Iterator[Exported]:
    """Which pages are written, but for those of removed documents: their fields."""
    for name in ("overview", "stages", "removed", "compare"):
        if name in pages:
            yield pages[name], {}
    for stage in target.recipe.stages:
        yield pages["stage"], {"stage": stage.name}
    for name in target.sequences:
        yield from _rows(target, pages, name)


def _removed(target: Target, pages: dict[str, Listed]) -> Iterator[dict[str, Any]]:
    """The fields of pages of removed documents: the first of each reason, then the second of each, and so on; before
    them, one of rows that could not be read."""
    if "removed" not in pages:
        return
    shown = loaded(target, pages["removed"], pages["removed"].page.query())
    if any(one.quarantined for one in shown.sources):
        yield {"reason": QUARANTINED}
    for at in range(REMOVED):
        for reason, n in shown.reasons.items():
            if at < n:
                yield {"reason": reason, **({"at": at} if at else {})}


def _rows(target: Target, pages: dict[str, Listed], name: str) -> Iterator[Exported]:
    """Samples of a sequence: its first row, others spread over it, and steps."""
    try:
        rows = len(target.sequence(name))
    except UserError:  # not built yet
        return
    for row in sorted({rows * i // SAMPLES for i in range(SAMPLES)} if rows else ()):
        yield pages["sequence"], {"stage": name, **({"row": row} if row else {})}
    if target.batch(name) is not None:
        steps = target.steps(name)
        last = steps.last
        spikes = [step for part in steps.legs for step in part.spikes][:SAMPLES]
        for step in sorted({steps.first, (steps.first + last) // 2, last, *spikes} if last else ()):
            yield pages["step"], {"stage": name, "step": step}
        for step in spikes:
            yield from _worst_row(steps, pages, name, step)


def _worst_row(steps: Steps, pages: dict[str, Listed], name: str, step: int) -> Iterator[Exported]:
    """The row of an outlying step whose loss was highest, if its tokens' losses were recorded."""
    leg = steps.at(step)
    found = None if leg is None or not leg.current else leg.row_losses(step)
    if leg is not None and found is not None and len(worst := found.highest(1)):
        row = leg.rows(step)[0] + int(worst[0])
        if row in leg.token_losses(step, [row]):
            yield pages["sequence"], {"stage": name, "row": row, "color": "loss"}


def rewritten(page: str, files: dict[str, str], private: dict[str, str]) -> str:
    """A page whose links lead to files.

    Args:
        page: as the viewer draws it.
        files: address -> the name of its file.
        private: texts -> what stands there instead.
    """
    writer = _Writer(files, private)
    writer.feed(page)
    writer.close()
    return "".join(writer.parts)


class _Writer(HTMLParser):
    """Writes a page again, without what needs a server."""

    def __init__(self, files: dict[str, str], private: dict[str, str]) -> None:
        super().__init__(convert_charrefs=False)
        self.parts: list[str] = []
        self._files, self._private = files, private
        self._links: list[str] = []  # what each open link has become
        self._hidden: list[str] = []  # open elements that are left out
        self._drawings = 0  # open ones

    def _add(self, text: str) -> None:
        if not self._hidden:
            self.parts.append(text)

    def handle_decl(self, decl: str) -> None:
        self._add(f"<!{decl}>")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in LEFT_OUT:
            if tag not in WITHOUT_END:
                self._hidden.append(tag)
            return
        if self._hidden:
            return
        if tag == "a":
            self._link(dict(attrs))
            return
        self._drawings += tag == "svg"
        text = self.get_starttag_text() or ""
        href = dict(attrs).get("href") or ""
        if tag == "link" and href.startswith("/"):
            text = text.replace(f'"{href}"', f'"{href[1:]}"')
        self._add(text)
        if tag == "head":
            self._add(f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}"/>')

    def _link(self, attributes: dict[str, str | None]) -> None:
        href, hash_, fragment = (attributes.get("href") or "").partition("#")
        file = self._files.get(href)
        if file is None and href and "data-key" in attributes:  # a step to a page that is not there
            self._hidden.append("a")
            return
        # In drawings a link may hold shapes, and a group stands for it there.
        self._links.append("a" if file is not None or not href else "g" if self._drawings else "span")
        kept = {k: v for k, v in attributes.items() if k in ("class", "id", "aria-current", "aria-label")}
        if self._links[-1] == "a":
            kept["href"] = f"{file or ''}{hash_}{fragment}"
        told = "".join(f' {name}="{escape(value or "")}"' for name, value in kept.items())
        self._add(f"<{self._links[-1]}{told}>")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if self._hidden:
            if tag == self._hidden[-1]:
                self._hidden.pop()
        else:
            self._drawings -= tag == "svg"
            self._add(f"</{self._links.pop() if tag == 'a' else tag}>")

    def handle_data(self, data: str) -> None:
        for path, name in self._private.items():
            data = data.replace(path, name)
        self._add(data)

    def handle_entityref(self, name: str) -> None:
        self._add(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self._add(f"&#{name};")
