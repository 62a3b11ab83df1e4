"""The card's part for lawyers: which licenses, who says so, what they ask for, and what is not known or claimed."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace import spdx
from headrace.report.attribution import ATTRIBUTION
from headrace.report.card.facts import CardFacts
from headrace.report.card.markdown import code, table, text
from headrace.report.numbers import counted, percent, whole
from headrace.select.licences.columns import FOUND

LINES = 200  # of a table; ATTRIBUTION.parquet has them all

TERMS = (
    (("*-NC-ND-*",), "Neither commercial use nor adapted versions are licensed. Name author, source and license."),
    (("*-NC-*",), "Commercial use is not licensed. Name author, source and license; say what was changed."),
    (("*-ND-*",), "Adapted versions are not licensed. Name author, source and license."),
    (("CC-BY-SA-*",), "Name author, source and license; say what was changed; adaptations under the same license."),
    (("CC-BY-*",), "Name author, source and license; say what was changed."),
    (("ODC-By-*",), "Name the database and its license wherever it or what is made with it is used publicly."),
    (("ODbL-*", "CDLA-Sharing-*"), "Name the database and its license; adapted databases under the same license."),
    (("CC0-*", "Unlicense", "0BSD", "MIT-0", "PDDL-*", "WTFPL"), "Nothing."),
    (("Apache-*",), "Keep notices of copyright, patents and attribution, NOTICE files and the license; mark changes."),
    (
        ("MIT", "ISC", "BSD-*", "Zlib", "X11", "NCSA", "PostgreSQL", "PSF-*", "Python-2.0*", "BSL-1.0"),
        "Keep the copyright notice and the license with copies.",
    ),
    (
        ("AGPL-*", "GPL-*"),
        "Keep notices and license; pass on source; derived works under the same license"
        " (AGPL: also when they are used over a network).",
    ),
    (
        ("LGPL-*", "MPL-*", "EPL-*", "CDDL-*", "EUPL-*"),
        "Keep notices and license; changed files, or the library, stay under the same license with their source.",
    ),
    (("GFDL-*",), "Keep notices, title and license; derived works under the same license."),
)
"""What families of licenses ask of whoever passes texts on; the first that matches. Summaries of the licenses' own
texts at spdx.org/licenses."""


@dataclass
class _Line:
    documents: int = 0
    tokens: int | None = None
    used: int = 0
    by_stage: dict[str, int] = field(default_factory=dict)


Key = tuple[str, str, str]
"""Source, license, how it was found."""


def licences(facts: CardFacts) -> list[str]:
    """The section."""
    lines = _lines(facts)
    stages = [stage.name for stage in facts.run.stages]
    return [
        "## Licenses",
        "",
        *_standing(facts, lines),
        *_by_source(lines, stages),
        *_ways(lines),
        *_terms({name for _, name, _ in lines}),
        "### Attribution",
        "",
        f"`{ATTRIBUTION}` has a line for every document "
        + ("that the stages are made of: " if stages else "that was kept: ")
        + "its id, source, repository, path, address, file and row of origin, language, license, how the license was "
        "found" + (", and its tokens in each stage." if stages else "."),
        "Who passes on these documents, or texts that contain them, has to give the credit and keep the notices that "
        "each one's license asks for; that file says to whom and for what.",
        "",
    ]


def not_claimed(facts: CardFacts) -> list[str]:
    """What a reader must not conclude from the card."""
    searched = sorted(facts.detected)
    unsearched = [source.name for source in facts.run.sources if source.name not in searched]
    points = [
        "This card is no license and no legal advice. It grants no rights in the documents: each stays under its own "
        "license and with its owner, and where no license is known, none is implied.",
        "Licenses are recorded as they were found. Nobody checked that whoever stated them was entitled to, that they "
        "cover every part of a document, or that they still hold.",
        "A license declared for a whole source is a statement by the author of the recipe.",
        "Repository, path and address are what the records say of themselves.",
        "Nothing is said about whether training on these documents, or publishing a model trained on them, is "
        "permitted anywhere.",
        "Documents were not searched for personal data, secrets, malware, or illegal or harmful content, unless a "
        "filter under *What was removed* says so.",
        "Near-duplicates are found by hashing, so some remain. Benchmarks that are not listed were not searched for, "
        "and paraphrases and translations of listed ones are not found.",
        "Requests to leave documents out are honored as far as the recipe lists them; earlier copies of this data may "
        "contain more.",
    ]
    if unsearched:
        names = ", ".join(text(name) for name in unsearched)
        points.insert(
            2,
            f"Texts and license files were not searched for licenses in {names}: there a license is only what the "
            "records or the recipe state.",
        )
    return ["## What is not claimed", "", *(f"- {point}" for point in points), ""]


def hub_licences(facts: CardFacts) -> list[str]:
    """The identifiers for the front matter: as the hub spells them, ``other`` and ``unknown`` included."""
    found: set[str] = set()
    for _, name, _ in _lines(facts):
        if not name:
            found.add("unknown")
        for part in spdx.parts(name) or ([name] if name else []):
            found.add(_hub(part) or "other")
    return sorted(found - {"other", "unknown"}) + sorted(found & {"other", "unknown"})


# Identifiers that the hub accepts, where they are not the SPDX identifier in lower case (hub documentation,
# "repositories-licenses").
_HUB_IDS = frozenset(
    """
    afl-3.0 apache-2.0 artistic-2.0 bsl-1.0 bsd-2-clause bsd-3-clause bsd-3-clause-clear cc0-1.0 cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
    cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cdla-permissive-1.0 cdla-permissive-2.0
    cdla-sharing-1.0 ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 isc lppl-1.3c mit mpl-2.0 ms-pl ncsa ofl-1.1
    osl-3.0 postgresql unlicense wtfpl zlib
    """.split()  # noqa: SIM905 - as a list it takes a page
)
_HUB_FAMILIES = {"odc-by-1.0": "odc-by", "odbl-1.0": "odbl", "pddl-1.0": "pddl"}


def _hub(part: str) -> str | None:
    name = part.casefold()
    for ending in ("-only", "-or-later"):
        if name.startswith(("agpl-3.0", "gpl-2.0", "gpl-3.0", "lgpl-2.1", "lgpl-3.0")) and " " not in name:
            name = name.removesuffix(ending)
    if name in ("agpl-3.0", "gpl-2.0", "gpl-3.0", "lgpl-2.1", "lgpl-3.0"):
        return name
    return _HUB_FAMILIES.get(name, name if name in _HUB_IDS else None)


def _lines(facts: CardFacts) -> dict[Key, _Line]:
    """Licenses by source and how they were found, most documents first."""
    lines: dict[Key, _Line] = {}
    for one in facts.run.licences:
        line = lines.setdefault((one.source, one.name, one.found), _Line())
        line.documents, line.tokens = one.documents, one.tokens
    for use in facts.uses:
        line = lines.setdefault((use.source, use.license, use.found), _Line())
        line.used += use.documents
        for stage, n in use.tokens.items():
            line.by_stage[stage] = line.by_stage.get(stage, 0) + n
    return dict(sorted(lines.items(), key=lambda item: (-item[1].documents, item[0])))


def _standing(facts: CardFacts, lines: dict[Key, _Line]) -> list[str]:
    """What is known of how much, in sentences."""
    documents = sum(line.documents for line in lines.values())
    tokens = sum(line.tokens or 0 for line in lines.values())
    unknown = [line for (_, name, _), line in lines.items() if not name]
    odd = [line for (_, name, _), line in lines.items() if name and not spdx.is_known(name)]
    good = documents - sum(line.documents for line in unknown + odd)

    def share(some: list[_Line]) -> str:
        n = sum(line.documents for line in some)
        of = f"{whole(n)} of {counted(documents, 'document')} ({percent(n, documents)})"
        return of if not tokens else f"{of}, {percent(sum(line.tokens or 0 for line in some), tokens)} of the tokens"

    out = [
        "These are collected documents. Each is under the license of its own, if it has one; there is no license for "
        "the collection as a whole.",
        "",
    ]
    if unknown:
        out += [
            f"**No license is known for {share(unknown)}.** Nothing in the data or the recipe permits their use; "
            "whoever uses them needs another ground.",
            "",
        ]
    if odd:
        out += [
            f"**For {share(odd)} a license is stated that is not on the SPDX list.** It is given as stated, and its "
            "terms are not summarized here.",
            "",
        ]
    if documents and good == documents:
        out += ["Every kept document has a license on the SPDX list.", ""]
    return out


def _by_source(lines: dict[Key, _Line], stages: list[str]) -> list[str]:
    shown = list(lines.items())
    rest = shown[LINES:]
    rows = [_row(_words(key), line, stages) for key, line in shown[:LINES]]
    if rest:
        total = _Line()
        for _, line in rest:
            total.documents += line.documents
            total.used += line.used
            total.tokens = (total.tokens or 0) + (line.tokens or 0)
            for stage in stages:
                total.by_stage[stage] = total.by_stage.get(stage, 0) + line.by_stage.get(stage, 0)
        rows.append(_row((f"{whole(len(rest))} more", f"see `{ATTRIBUTION}`", "–"), total, stages))
    columns = ["source", "license", "found in", "documents kept", "tokens, counted once"]
    if stages:
        columns += ["documents in stages", *(f"tokens in {text(stage)}" for stage in stages)]
    note = "Counted once: every kept document, in all splits. "
    note += "Tokens in a stage: every copy, also where a document ends one row and begins the next." if stages else ""
    return ["### By source", "", *table(columns, rows, 3), note, ""]


def _words(key: Key) -> tuple[str, str, str]:
    """Source, license and way as Markdown."""
    source, name, found = key
    licence = "**not known**" if not name else text(name) if spdx.is_known(name) else f"{code(name)} (not SPDX)"
    return text(source), licence, found or "–"


def _row(words: tuple[str, str, str], line: _Line, stages: list[str]) -> tuple[object, ...]:
    tokens = None if line.tokens is None else whole(line.tokens)
    used = (whole(line.used), *(whole(line.by_stage.get(stage, 0)) for stage in stages)) if stages else ()
    return (*words, whole(line.documents), tokens, *used)


def _ways(lines: dict[Key, _Line]) -> list[str]:
    found = {way for _, _, way in lines}
    ways = [f"`{way}`: {FOUND[way]}" for way in FOUND if way in found]
    return [f"Found in {'; '.join(ways)}. The first of these that a document has counts.", ""] if ways else []


def _terms(names: set[str]) -> list[str]:
    single = sorted({part for name in names for part in spdx.parts(name)})
    if not single:
        return []
    rows = []
    for part in single[:LINES]:
        asked = next((terms for family, terms in TERMS if any(spdx.matches(f, part) for f in family)), None)
        link = f"[{part}](https://spdx.org/licenses/{part}.html)" if " " not in part else part
        rows.append((link, asked or "Not summarized here: read the license."))
    head = ["license", "what it asks of whoever passes texts on, in short; its own text decides"]
    return ["### Terms", "", *table(head, rows, 2)]
