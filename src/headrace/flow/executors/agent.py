"""A node of a cluster: takes tasks from a mailbox in the run folder, has workers of its machine do them, and passes on
what these say.

Started by Slurm as ``python -m headrace.flow.executors.agent RUN``. It serves one session of a coordinator after
another, so a coordinator that was killed and started again finds it there. It ends when it is told to; when the
coordinator's counter has stood still; or on SIGTERM, which Slurm sends some time before the end: then it takes no more
tasks, and hands back what it cannot finish.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from headrace.environment import cores, data_memory
from headrace.flow.executors.mailbox import BEAT_SECONDS, Inbox, Outbox, Watch, read_pulse
from headrace.flow.executors.workers import Workers
from headrace.flow.storage import process_name

QUEUE = "queue"  # in the run folder
PULSE = "coordinator.json"
# A look at the mailbox opens a file: on a network one question to its server. After news the next may follow at once.
LEAST_PAUSE, MOST_PAUSE = 0.02, 0.5
GRACE = 20.0  # seconds for running tasks once told to leave; Slurm kills 30 s after SIGTERM by default (KillWait)

Message = dict[str, Any]


def main() -> None:
    """``python -m headrace.flow.executors.agent RUN``."""
    run = Path(sys.argv[1])
    if not (run / QUEUE / PULSE).exists():
        sys.exit(f"{run} on {socket.gethostname()} is not the run folder: all nodes must see it under the same path.")
    asked: list[float] = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(time.monotonic()))
    name = "-".join(os.environ.get(part, "0") for part in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"))
    watch: Watch | None = None
    served = {""}  # a session that was left is not joined again: its mailbox still has the tasks from before
    while not asked:
        told = read_pulse(run / QUEUE / PULSE)
        watch = watch or (Watch(told["patience"]) if told else None)
        if watch is not None and watch.stopped(told):
            sys.exit("The coordinator's counter has stood still: it is gone.")
        if told is not None and told["ended"]:
            return
        if told is not None and told["session"] not in served:
            served.add(told["session"])
            try:
                Session(run, name, told, asked).serve()
            except FileNotFoundError:
                if (run / QUEUE / told["session"]).exists():
                    raise  # otherwise the coordinator has cleared the session away
        time.sleep(MOST_PAUSE)


class Session:
    """What one coordinator asks of this node.

    Args:
        run: the run folder.
        name: this agent's, unique among all.
        told: what the coordinator's pulse says.
        asked: times at which this process was asked to end.
    """

    def __init__(self, run: Path, name: str, told: Message, asked: list[float]) -> None:
        self._pulse, self._session, self._asked = run / QUEUE / PULSE, told["session"], asked
        folder = run / QUEUE / told["session"]
        self._path = folder / f"{name}.in"
        self._path.touch()  # who made a name does not remember that there was none
        self._inbox, self._outbox = Inbox(self._path), Outbox(folder / f"{name}.out")
        node = f"{os.environ.get('SLURMD_NODENAME') or socket.gethostname()}/{name}"
        workers, memory = told["workers"] or cores(), told["memory"] or data_memory()
        self._workers = Workers(run, told["graph"], workers, process_name())
        self._running: set[tuple[str, str, int]] = set()
        self._progress: dict[tuple[Any, ...], Message] = {}
        self._watch = Watch(told["patience"])
        self._outbox.put({"message": "hello", "node": node, "workers": workers, "memory": memory, "gpus": _gpus()})

    def serve(self) -> None:
        """Until the session ends, or this process is asked to."""
        pause, beat, leaving = LEAST_PAUSE, 0.0, False
        try:
            while True:
                news = self._workers.hear(pause)
                self._pass_on(news)
                orders = self._inbox.take()
                for order in orders:
                    if order.pop("do") == "end":
                        return
                    if not leaving:
                        self._running.add((order["artifact"], order["phase"], order["task"]))
                        self._workers.ask(order)
                if self._asked and not leaving:
                    leaving = True
                    self._outbox.put({"message": "leaving"})
                if leaving and (not self._running or time.monotonic() > self._asked[0] + GRACE):
                    return
                if time.monotonic() > beat + BEAT_SECONDS:
                    beat = time.monotonic()
                    told = read_pulse(self._pulse)
                    if (told is not None and told["session"] != self._session) or self._watch.stopped(told):
                        return
                    self._outbox.put({"message": "life"}, *self._progress.values())
                    self._progress.clear()
                pause = LEAST_PAUSE if news or orders else min(2 * pause, MOST_PAUSE)
        finally:
            self._workers.close()
            self._outbox.put({"message": "gone"})

    def _pass_on(self, news: list[Message]) -> None:
        """Progress is summed up between two signs of life; all else is sent at once."""
        sent = []
        for message in news:
            if message["message"] == "progress":
                key = message["artifact"], message["phase"], message["task"]
                before = self._progress.get(key, {"rows": 0, "bytes": 0})
                summed = {name: message[name] + before[name] for name in ("rows", "bytes")}
                self._progress[key] = {**message, **summed}
                continue
            if message["message"] in ("done", "failed", "died"):
                key = message["artifact"], message["phase"], message["task"]
                self._running.discard(key)
                sent += [self._progress.pop(key)] if key in self._progress else []
            sent.append(message)
        if sent:
            self._outbox.put(*sent)


def _gpus() -> int:
    """The GPUs that Slurm gave to this job."""
    return len([device for device in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if device])


if __name__ == "__main__":
    main()
