"""What methods ask, and what they read in answers."""

from __future__ import annotations

import pytest

from headrace.errors import UserError
from headrace.functions.calling import Function
from headrace.recipe.load import load_recipe
from headrace.recipe.synthetic import Synthetic
from headrace.sequence.jinja import Template
from headrace.synthetic.items import Item, Seed, unusable
from headrace.synthetic.methods import method_of
from headrace.synthetic.methods.files import same_language
from headrace.synthetic.parsing import Unparsed, code_blocks, only_code, sections
from headrace.synthetic.requests import Reply

SEED = Seed("0" * 32, 0, "\n".join(f"line {i}" for i in range(40)), "a", "python", "MIT")
TASK = Seed(
    "1" * 32, 1, "Sort a list.\n\nUse sorted().", "t", turns=(("user", "Sort a list."), ("assistant", "Use sorted()."))
)


def made_by(method, replies, seeds=(SEED,), number=0, **more):
    """The prompts that a method renders and what it makes of replies."""
    config = Synthetic.model_validate(
        {"method": method, "count": 5, "server": {"url": "http://x/v1", "model": "m"}, **more}
    )
    chain = method_of(config).chain(Item(number, seeds, 0, 7 + number))
    prompts, ask = [], next(chain)
    try:
        for reply in replies:
            given = {"text": seeds[0].text, "language": seeds[0].language, **ask.variables}
            prompts.append(Template(ask.template, "prompt").render([], given).text)
            ask = chain.send(reply if isinstance(reply, Reply) else Reply(reply, "stop"))
    except StopIteration as stop:
        return prompts, stop.value
    raise AssertionError("it asks for more")


def test_oss_instruct():
    answer = "[Problem]\nDo it.\n\n[Solution]\n```python\nx = 1\n```"
    [prompt], [made] = made_by("oss-instruct", [answer])
    assert "line " in prompt
    assert "python" in prompt
    assert made.text == "Do it.\n\n```python\nx = 1\n```"
    assert made.language == "python"
    _, [made] = made_by("oss-instruct", [answer], chat=True)
    assert made.turns == [("user", "Do it."), ("assistant", "```python\nx = 1\n```")]
    _, [made] = made_by("oss-instruct", ["no sections"])
    assert (made.finding, made.text) == ("parse", "no sections")
    assert made.evidence == {"error": "no section 'Problem'"}


def test_oss_instruct_with_tests():
    answer = (
        "## Problem\nTwice.\n## Solution\n```python\ndef f(x): return 2*x\n```\n## Tests\n```\nassert f(1) == 2\n```"
    )
    [prompt], [made] = made_by("oss-instruct", [answer], tests=True)
    assert "[Tests]" in prompt
    assert (made.program, made.tests) == ("def f(x): return 2*x\n", "assert f(1) == 2\n")
    _, [made] = made_by("oss-instruct", [answer.replace("```\nassert f(1) == 2\n```", "none")], tests=True)
    assert made.evidence == {"error": "no fenced code in the tests"}


@pytest.mark.parametrize("number", range(30))
def test_snippets_are_lines_of_the_seed(number):
    [prompt], _ = made_by("files", ["x"], number=number, lines=5)
    shown = [line for line in prompt.splitlines() if line.startswith("line ")]
    assert 1 <= len(shown) <= 5
    assert "\n".join(shown) in SEED.text


def test_files():
    _, [made] = made_by("files", ["Sure:\n```python\nprint(1)\n```\nDone."])
    assert made.text == "print(1)\n"
    _, [made] = made_by("files", ["```java\nclass A {}\n```"])
    assert made.finding == "parse"
    assert made.evidence["answered"] == "java"
    _, [made] = made_by("files", ["```python\nprint(1)"])
    assert made.evidence == {"error": "no code in a closed fence"}
    _, [made] = made_by("files", [Reply("```python\nprint(1)", "length")])
    assert (made.finding, made.evidence) == ("truncated", {"finish_reason": "length"})
    _, [made] = made_by("files", [Reply("", failed="HTTP 500")])
    assert made.finding == "failed"


def test_names_of_languages():
    for tag, language in (("cpp", "C++"), ("py", "Python"), ("js", "javascript"), ("rust", "Rust"), ("bash", "Shell")):
        assert same_language(tag, language)
    for tag, language in (("java", "javascript"), ("c", "C++"), ("text", "python"), ("cs", "c")):
        assert not same_language(tag, language)


def test_self_instruct():
    answer = "### Task\nWrite a page about tea please.\n### Answer\n<html></html>\n"
    answer += "### Task 2:\nName three colors of the sky.\n### Answer\nBlue.\n"
    [prompt], made = made_by("self-instruct", [answer], (TASK, TASK, TASK), about="websites", chat=True)
    assert "websites" in prompt
    assert prompt.count("Sort a list.") == 3
    assert [one.turns for one in made] == [
        [("user", "Write a page about tea please."), ("assistant", "<html></html>")],
        [("user", "Name three colors of the sky."), ("assistant", "Blue.")],
    ]


def test_self_instruct_finds_what_is_unsuitable_and_keeps_all_but_the_last_of_a_cut_answer():
    answer = "### Task\nToo short.\n### Answer\nYes.\n### Task\nDraw me an image of a fox.\n### Answer\nNo.\n"
    answer += "### Task\nTell me what two and two make.\n### Answer\nFour.\n### Task\nAn answer that is cut off he"
    _, made = made_by("self-instruct", [Reply(answer, "length")], (TASK,), unsuitable=["image"])
    assert [one.finding for one in made] == ["unsuitable", "unsuitable", None, "truncated"]
    assert made[1].evidence == {"word": "image"}
    _, [one] = made_by("self-instruct", ["I cannot."], (TASK,))
    assert one.finding == "parse"


def test_evol():
    prompts, [made] = made_by("evol", ["Harder task.", "Even harder task.", "Its answer."], (TASK,), rounds=2)
    assert "Sort a list." in prompts[0]
    assert "Harder task." in prompts[1]
    assert prompts[2] == "Even harder task."
    assert made.text == "Even harder task.\n\nIts answer."
    assert len(made.about["ways"]) == 2
    _, [made] = made_by("evol", ["Sort a list."], (TASK,))
    assert made.evidence["error"] == "the task was not changed"
    _, [made] = made_by("evol", ["Harder.", Reply("", failed="HTTP 500")], (TASK,))
    assert made.finding == "failed"


def test_all_ways_of_evol_and_styles_are_drawn():
    ways = {made_by("evol", ["A", "B"], (TASK,), number)[1][0].about["ways"][0] for number in range(60)}
    assert ways == {"constraints", "deeper", "concrete", "reasoning", "breadth"}
    told = [made_by("rephrase", ["x"], number=n, styles=["table", "as a song"], originals=0.5) for n in range(60)]
    assert {made.about["style"] for _, [made] in told} == {"table", "as a song"}
    assert {made.about.get("original", False) for _, [made] in told} == {True, False}
    for [prompt], [made] in told:
        assert ("as a song" in prompt) == (made.about["style"] == "as a song")
        assert made.text == (f"{SEED.text}\n\nx" if "original" in made.about else "x")


def test_a_prompt_in_a_file(tmp_path):
    (tmp_path / "own.jinja").write_text("About {{ text }} in {{ language }}: go.")
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "recipe.yaml").write_text(
        "name: own\nsources: {a: {files: a.txt}}\nsynthetic:\n  hq:\n    method: prompt\n    prompt: own.jinja\n"
        "    count: 3\n    server: {url: 'http://x/v1', model: m}\n"
    )
    config = load_recipe(tmp_path / "recipe.yaml").synthetic["hq"]
    assert config.prompt == "About {{ text }} in {{ language }}: go."


def test_the_scale_of_a_recipe_multiplies_the_documents_to_make(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    hq = {"method": "files", "count": "3k", "server": {"url": "http://x/v1", "model": "m"}}
    data = {"name": "x", "scale": 0.01, "sources": {"a": {"files": str(tmp_path / "a.txt")}}, "synthetic": {"hq": hq}}
    assert load_recipe(data).synthetic["hq"].count == 30


def test_headings_in_any_dress_but_in_order():
    for dress in ("[{}]", "## {}", "**{}**", "{}:", "### [{}]", "[{}]:"):
        answer = f"intro\n{dress.format('Problem')}\none\n{dress.format('solution')}\ntwo\n"
        assert sections(answer, ["Problem", "Solution"]) == ["one", "two"]
    with pytest.raises(Unparsed, match="no section 'Solution'"):
        sections("[Solution]\nx\n[Problem]\ny", ["Problem", "Solution"])
    with pytest.raises(Unparsed, match="nothing in the section"):
        sections("[Problem]\n\n[Solution]\ny", ["Problem", "Solution"])


def test_the_longest_code_block_is_the_file():
    assert only_code("```\nab\n```\n~~~c\nlonger\n```\nstill\n~~~\n") == ("c", "longer\n```\nstill\n")
    with pytest.raises(Unparsed, match="no fenced code"):
        only_code("none")


WRONG = {
    "says nothing": {"lines": 3, "method": "evol"},
    "needs a prompt": {"method": "prompt"},
    "each with its own prompt": {"method": "evol", "prompt": "x"},
    "neither a server": {"server": {"model": "m"}},
    "holds a password": {"server": {"url": "http://a:b@c/v1", "model": "m"}},
    "holds a key": {"server": {"url": "http://c/v1?api_key=1234", "model": "m"}},
    "not the address": {"server": {"url": "ftp://c", "model": "m"}},
    "is not an option": {"server": {"url": "http://c", "model": "m", "options": {"n": 3}}},
    "add up to more": {"seeds": {"languages": {"a": 0.7, "b": 0.6}}},
    "both say how many": {"seeds": {"count": 3, "share": 0.5}},
    "no source 'b'": {"seeds": {"sources": ["b"]}},
    "nope": {"seeds": {"where": "nope > 3"}},
    "cannot be read": {"prompt": "missing.jinja", "method": "prompt"},
}


@pytest.mark.parametrize("what", WRONG)
def test_mistakes_in_the_recipe(what, tmp_path):
    (tmp_path / "a.txt").write_text("text")
    section = {"method": "files", "count": 3, "server": {"url": "http://x/v1", "model": "m"}, **WRONG[what]}
    with pytest.raises(UserError, match=f"(?i){what}") as error:
        load_recipe({"name": "x", "sources": {"a": {"files": str(tmp_path / "a.txt")}}, "synthetic": {"hq": section}})
    assert "synthetic.hq" in str(error.value)


def test_a_synthetic_source_needs_documents_and_is_not_read_from_files(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    hq = {"method": "files", "count": 3, "server": {"url": "http://x/v1", "model": "m"}}
    with pytest.raises(UserError, match="no documents to be inspired by"):
        load_recipe({"name": "x", "synthetic": {"hq": hq}})
    files = {"files": str(tmp_path / "a.txt")}
    with pytest.raises(UserError, match="not read from files"):
        load_recipe({"name": "x", "sources": {"hq": files}, "synthetic": {"hq": hq}})
    with pytest.raises(UserError, match="no files"):
        load_recipe({"name": "x", "sources": {"a": {}}})
    with pytest.raises(UserError, match="Nothing makes this source"):
        load_recipe({"name": "x", "sources": {"a": files, "b": {"synthetic": "text"}}})


LOST = {  # what models write that have lost their way
    "fences": "```py\n" * 200_000,
    "fences of all lengths": "\n".join("`" * n + "x" for n in range(2000, 2, -1)),
    "a tag": "```" + "a" * 10**6 + "`",
    "blanks": " " * 10**6 + "x",
    "a heading and blanks": "[Problem]" + " " * 10**5 + "x",
    "a task and blanks": "### Task" + " " * 10**5 + "x",
    "digits": "### " + "1" * 10**5 + "x",
    "stars": "* # " * 10**5 + "Problem",
}


@pytest.mark.parametrize("name", LOST)
@pytest.mark.parametrize("method", ["oss-instruct", "files", "self-instruct"])
def test_answers_that_lost_their_way_are_read_in_linear_time(method, name):
    """With backtracking, each of them takes one of the methods hours."""
    seeds = (TASK, TASK, TASK) if method == "self-instruct" else (SEED,)
    _, [made] = made_by(method, [LOST[name]], seeds=seeds)
    assert made.finding == "parse"


def test_fences_as_commonmark_has_them():
    assert code_blocks("````md\n```\nx\n```\n````") == [("md", "```\nx\n```\n")]
    assert code_blocks("~~~\na\n~~~~\nb") == [("", "a\n")]
    assert code_blocks("```js\nnever closed\n~~~ Py\nx\n~~~\n``") == [("py", "x\n")]
    assert code_blocks("```py\r\nx = 1\r\n```\r\n") == [("py", "x = 1\r\n")]
    assert code_blocks("```\n```") == [("", "")]


@pytest.mark.parametrize("finish", [None, "stop", "STOP", "eos_token", "stop_sequence", "end_turn"])
def test_answers_that_the_model_ended(finish):
    assert unusable(Reply("x", finish)) is None


PARSED = {
    "role": ({"messages": [{"content": "a"}]}, "returns NoneType for `role`"),
    "content": ({"messages": [{"role": "user", "content": 3}]}, "returns int for `content`"),
    "no messages": ({"messages": []}, "`messages` that are no list of messages"),
    "messages of text": ({"messages": ["a"]}, "`messages` that are no list of messages"),
    "language": ({"text": "a", "language": 3}, "returns int for `language`"),
    "set": ({"text": "a", "more": {1}}, "fields that are not JSON"),
    "number": ({"text": "a", "more": 10**30}, "fields that are not JSON"),
    "surrogate": ("a\ud800", "a lone surrogate in a text"),
    "blank": ({"text": " "}, "returns nothing for `text`"),
    "other": (3, "returns int"),
}


@pytest.mark.parametrize("name", PARSED)
def test_what_a_parser_must_not_return(name):
    value, said = PARSED[name]
    config = Synthetic.model_validate(
        {"method": "prompt", "prompt": "p", "chat": True, "count": 1, "server": {"url": "http://x/v1", "model": "m"}}
    )
    for stop in (False, True):
        method = method_of(config)
        method.parser = Function(lambda answer: value, "parsers.py:f", {}, stop)
        chain = method.chain(Item(0, (SEED,), 0, 7))
        next(chain)
        if stop:
            with pytest.raises(UserError, match=r"parsers\.py:f"):
                chain.send(Reply("x", "stop"))
            continue
        with pytest.raises(StopIteration) as ended:
            chain.send(Reply("x", "stop"))
        [made] = ended.value.value
        assert made.finding == "parse"
        assert said in made.evidence["error"]
