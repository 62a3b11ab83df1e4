"""Licenses as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import spdx

WORDS = [
    "MIT",
    "and",
    "OR",
    "WITH",
    "(",
    ")",
    "+",
    "-",
    ",",
    "/",
    "apache-2.0",
    "Classpath-exception-2.0",
    "license",
    "x",
]


@pytest.mark.parametrize(
    ("written", "expression"),
    [
        ("mit", "MIT"),
        (" The MIT License\n", "MIT"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("Apache 2.0", "Apache-2.0"),
        ("GPL-3.0", "GPL-3.0-only"),
        ("GPL-2.0+", "GPL-2.0-or-later"),
        ("AGPLv3+", "AGPL-3.0-or-later"),
        ("CC BY-SA 4.0", "CC-BY-SA-4.0"),
        ("http://creativecommons.org/licenses/by-sa/3.0/", "CC-BY-SA-3.0"),
        ("https://spdx.org/licenses/GPL-2.0-only.html", "GPL-2.0-only"),
        ("odc-by", "ODC-By-1.0"),
        ("MIT, Apache-2.0", "Apache-2.0 AND MIT"),
        ("MIT/Apache-2.0", "Apache-2.0 OR MIT"),
        ("mit or (apache-2.0 and isc)", "MIT OR (Apache-2.0 AND ISC)"),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "GPL-2.0-only WITH Classpath-exception-2.0"),
        ("BSD", None),  # of two, three or four clauses
        ("LGPL", None),
        ("MIT & <b>", None),
        ("Classpath-exception-2.0", None),
        ("LicenseRef-mine", None),
        ("( )", None),
        ("(" * 400, None),
        ("MIT OR " * 1000 + "MIT", None),
        ("", None),
    ],
)
def test_names_become_expressions(written, expression):
    assert spdx.expression(written) == expression
    assert spdx.normalised(written) == (expression or written)


@given(st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join) | st.text(max_size=40))
def test_what_is_found_is_found_again(written):
    found = spdx.expression(written)
    if found is not None:
        assert spdx.expression(found) == found
        assert spdx.parts(found)
        assert set(spdx.parts(found)) == {part for part in spdx.parts(found) if spdx.is_known(part)}
        assert spdx.expression(spdx.joined([found, "ISC"])) is not None


@pytest.mark.parametrize("written", ["", " ", "NOASSERTION", "none", "Unknown", "other", None])
def test_who_states_that_nothing_is_known_states_nothing(written):
    assert spdx.stated(written) is None


@pytest.mark.parametrize(
    ("name", "allow", "deny", "refused"),
    [
        ("MIT", (), (), None),
        ("MIT", ("MIT",), (), None),
        ("MIT", ("Apache-2.0",), (), ("allow", None)),
        ("MIT OR GPL-3.0-only", ("mit",), (), None),
        ("MIT AND GPL-3.0-only", ("MIT",), (), ("allow", None)),
        ("MIT AND GPL-3.0-only", (), ("GPL-*",), ("deny", "GPL-*")),
        ("MIT OR GPL-3.0-only", (), ("GPL-*",), None),
        ("MIT", ("MIT",), ("MIT",), ("deny", "MIT")),
        ("GPL-2.0-only WITH Classpath-exception-2.0", ("GPL-2.0-only",), (), None),
        ("GPL-2.0-only WITH Classpath-exception-2.0", (), ("*WITH*",), ("deny", "*WITH*")),
        ("AGPL-3.0-only", (), ("GPL-*",), None),
    ],
)
def test_what_is_refused(name, allow, deny, refused):
    assert spdx.refused(name, allow, deny) == refused
