"""Ask for items, many at once, and judge what they make in their order, until there is enough.

What is kept depends on the answers alone, not on when they came: items are judged in order, and what was asked beyond
the last one needed is not looked at.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson
import xxhash

from headrace.errors import UserError
from headrace.evaluate.sandbox import Sandbox
from headrace.recipe.synthetic import Synthetic
from headrace.sequence.jinja import Refused, Template
from headrace.synthetic.answers import Answers
from headrace.synthetic.client import Client
from headrace.synthetic.items import Ask, Item, Made
from headrace.synthetic.judge import Judge, job_of
from headrace.synthetic.methods import Method
from headrace.synthetic.requests import Reply, Request, request_of

# Items at work for each request that may be sent: an answer that takes long holds up the judgment of those behind it,
# but not their requests.
AHEAD = 8
# Items begun beyond those that are needed if as large a share as so far is kept.
SPARE = 1.2


@dataclass
class Totals:
    """What a generation came to, as far as the answers decide it.

    Attributes:
        items: items judged.
        kept: documents kept.
        findings: documents that are not, by finding.
        input, output: tokens of the requests of the judged items, as the server counted.
    """

    items: int = 0
    kept: int = 0
    findings: Counter[str] = field(default_factory=Counter)
    input: int = 0
    output: int = 0


Write = Callable[[Item, Made, int], None]


class Generation:
    """One synthetic source in the making.

    Args:
        config: the recipe's section.
        name: the source's name.
        method: its method.
        items: what to ask for, in order.
        answers: what was answered so far.
        write: takes each document with its item and number, in order.
        tell: takes the totals and the client, if there is one, after each item.
        threads: programs in the sandbox at once.
    """

    def __init__(
        self,
        config: Synthetic,
        name: str,
        method: Method,
        items: Iterator[Item],
        answers: Answers,
        write: Write,
        tell: Callable[[Totals, Client | None], None],
        threads: int = 1,
    ) -> None:
        self._config, self._method, self._items, self._answers = config, method, items, answers
        self._write, self._tell = write, tell
        self._where = f"synthetic.{name}"
        self._templates: dict[str, Template] = {}
        self._judge = Judge(config)
        self.client: Client | None = None
        self._sandbox: Sandbox | None = None
        self._pool = ThreadPoolExecutor(threads)
        self._number = 0
        self._asking: dict[str, asyncio.Task[Reply]] = {}
        self.totals = Totals()

    def run(self) -> Totals:
        """Ask and judge until there are enough documents, or the items end.

        Raises:
            UserError: the server gives no answers, an answer is missing and there is no server, or programs cannot be
                isolated on this machine.
        """
        return asyncio.run(self._run())

    async def _run(self) -> Totals:
        with self._pool:
            if self._config.tests:
                with Sandbox() as self._sandbox:
                    return await self._connected()
            return await self._connected()

    async def _connected(self) -> Totals:
        if self._config.server.url is None:
            return await self._loop()
        async with Client(self._config.server, self._answers, f"{self._where}.server") as self.client:
            return await self._loop()

    async def _loop(self) -> Totals:
        under_way: deque[tuple[Item, asyncio.Task[tuple[list[Made], int, int]]]] = deque()
        totals, wanted = self.totals, self._config.count
        try:
            while totals.kept < wanted:
                while len(under_way) < self._ahead():
                    item = next(self._items, None)
                    if item is None:
                        break
                    under_way.append((item, asyncio.create_task(self._work(item))))
                if not under_way:
                    break
                item, task = under_way[0]
                made, read, written = await task
                under_way.popleft()
                totals.items += 1
                totals.input, totals.output = totals.input + read, totals.output + written
                self._take(item, made)
                self._tell(totals, self.client)
        finally:
            for _, task in under_way:
                task.cancel()
            await asyncio.gather(*(task for _, task in under_way), return_exceptions=True)
        return totals

    def _ahead(self) -> int:
        """How many items to have at work: no more than are likely to be needed."""
        totals = self.totals
        left = self._config.count - totals.kept
        each = (totals.kept + 1) / (totals.items + 1)  # documents of an item so far
        room = AHEAD * int(self.client.concurrency.limit) if self.client is not None else 1
        return max(1, min(room, math.ceil(SPARE * left / each)))

    def _take(self, item: Item, made: list[Made]) -> None:
        """Judge what an item made, and write it; what is beyond the wanted number is left."""
        totals = self.totals
        for one in made:
            if totals.kept == self._config.count:
                return
            self._judge.judge(one, item.seeds, self._number)
            if one.finding is None:
                totals.kept += 1
            else:
                totals.findings[one.finding] += 1
            self._write(item, one, self._number)
            self._number += 1

    # One item.

    async def _work(self, item: Item) -> tuple[list[Made], int, int]:
        """What an item makes, and the tokens read and written for it."""
        chain = self._method.chain(item)
        keys: list[str] = []
        read = written = 0
        try:
            ask = next(chain)
            while True:
                request = self._request(item, ask, len(keys))
                keys.append(request.key)
                reply = await self._reply(request)
                read, written = read + reply.input, written + reply.output
                ask = chain.send(reply)
        except StopIteration as stop:
            made: list[Made] = stop.value
        for one in made:
            one.requests = tuple(keys)
            if one.finding is None and self._config.tests:
                await self._test(one)
        return made, read, written

    def _request(self, item: Item, ask: Ask, step: int) -> Request:
        """The request for a prompt.

        Raises:
            UserError: the prompt cannot be rendered.
        """
        first = item.seeds[0]
        given = {
            "text": first.text,
            "snippet": first.text,
            "language": first.language,
            "path": first.path,
            "seeds": [{**vars(seed), "turns": [list(turn) for turn in seed.turns]} for seed in item.seeds],
            "draw": item.draw("draw"),
            **ask.variables,
        }
        system = self._render(self._config.system, given, "system") if self._config.system else ""
        prompt = self._render(ask.template, given, "prompt")
        return request_of(self._config.server, system, prompt, item.key("sampling", step) >> 33)

    def _render(self, source: str, given: dict[str, Any], key: str) -> str:
        template = self._templates.get(source)
        if template is None:
            template = self._templates[source] = Template(source, f"{self._where}.{key}", what="prompt")
        try:
            text = template.render([], given).text
            text.encode()
        except (Refused, UnicodeEncodeError) as refused:
            said = refused if isinstance(refused, Refused) else f"it has a lone surrogate at character {refused.start}"
            raise UserError(
                f"The prompt cannot be made: {said}.", f"{self._where}.{key}", "Mend the template."
            ) from None
        return text

    async def _reply(self, request: Request) -> Reply:
        kept = self._answers.reply(request.key)
        if kept is not None:
            return kept
        if self.client is None:
            raise UserError(
                "The recorded answers lack one that is needed.",
                f"{self._where}.answers: request {request.key}",
                "Give the server's address as `server.url`, or the answers of the run that this recipe was made with.",
            )
        asking = self._asking.get(request.key)
        if asking is None:  # two items may ask the same, and the first answer kept is the one that counts
            asking = self._asking[request.key] = asyncio.create_task(self.client.ask(request))
            asking.add_done_callback(lambda _: self._asking.pop(request.key, None))
        return await asking

    async def _test(self, made: Made) -> None:
        """Run a program against its tests, unless that was done before."""
        assert self._sandbox is not None
        job = job_of(made.program, made.tests)
        if isinstance(job, str):
            made.finding, made.evidence = "tests", {"error": job}
            return
        about = orjson.dumps(["tested", job.program, job.tests, job.names])
        key = xxhash.xxh3_128_hexdigest(about)
        told = self._answers.entry(key)
        if told is None:
            loop = asyncio.get_running_loop()
            verdict = await loop.run_in_executor(self._pool, partial(self._sandbox.run, job))
            told = {"key": key, "tested": verdict.status, "detail": verdict.detail}
            self._answers.add(told)
        if told.get("tested") == "passed":
            made.about["tests"] = "passed"
        else:
            made.finding, made.evidence = "tests", {"status": told.get("tested"), "error": told.get("detail")}
