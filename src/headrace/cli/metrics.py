"""Metrics of a run for Prometheus: ``headrace run --metrics PORT`` serves them on this machine's loopback address."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from headrace.errors import UserError
from headrace.flow.events import Listener

ADDRESS = "127.0.0.1"
# Seconds of a task: from what starting one takes to hours.
BUCKETS = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000)


@contextmanager
def metrics(port: int) -> Iterator[Listener]:
    """Serve metrics while a run lasts.

    Args:
        port: of the loopback address; 0 takes a free one.

    Yields:
        What is to hear the run's events.

    Raises:
        UserError: the port is taken, or prometheus-client is not installed.
    """
    if importlib.util.find_spec("prometheus_client") is None:
        raise UserError("prometheus-client is not installed.", "--metrics", "pip install 'headrace[metrics]'")
    from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    heard = _Metrics(registry)
    try:
        server, thread = start_http_server(port, addr=ADDRESS, registry=registry)
    except OSError as error:
        fix = "Choose another --metrics PORT."
        raise UserError(f"Metrics cannot be served: {error.strerror}.", f"{ADDRESS}:{port}", fix) from None
    try:
        yield heard
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Metrics:
    """A listener that counts.

    Args:
        registry: of prometheus_client.
    """

    def __init__(self, registry: Any) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        what = ["artifact", "phase"]
        self._planned = Gauge("headrace_phase_tasks", "Tasks of a phase.", what, registry=registry)
        self._done = Gauge("headrace_phase_tasks_done", "Those of them that are done.", what, registry=registry)
        self._seconds = Histogram("headrace_task_seconds", "Time of a task.", what, buckets=BUCKETS, registry=registry)
        self._rows = Counter("headrace_rows", "Rows that tasks went through.", what, registry=registry)
        self._bytes = Counter("headrace_bytes", "Bytes that tasks went through.", what, registry=registry)
        self._running = Gauge("headrace_tasks_running", "Tasks that run now.", ["node"], registry=registry)
        self._nodes = Gauge("headrace_nodes", "Nodes of the cluster.", registry=registry)
        self._lost = Counter("headrace_nodes_lost", "Nodes that were lost.", registry=registry)
        self._died = Counter("headrace_workers_died", "Workers that died at a task.", registry=registry)
        self._published = Counter("headrace_artifacts_published", "Artifacts that were made.", registry=registry)
        self._step = Gauge("headrace_training_step", "Step of a training.", ["artifact"], registry=registry)
        self._loss = Gauge("headrace_training_loss", "Its loss, nats a token.", ["artifact"], registry=registry)

    def __call__(self, event: dict[str, Any]) -> None:
        """Handle an event of the run."""
        kind, node = event["event"], event.get("node", "")
        what = event.get("artifact", ""), event.get("phase", "")
        if kind == "phase":
            self._planned.labels(*what).set(event["tasks"])
            self._done.labels(*what).set(event["done"])
        elif kind == "artifact" and event["state"] == "published":
            self._published.inc()
        elif kind == "progress":
            self._rows.labels(*what).inc(event["rows"])
            self._bytes.labels(*what).inc(event["bytes"])
            if event.get("loss") is not None:
                self._step.labels(what[0]).set(event["step"])
                self._loss.labels(what[0]).set(event["loss"])
        elif kind == "start":
            self._running.labels(node).inc()
        elif kind in ("waits", "task", "died", "error"):
            self._running.labels(node).dec()
            if kind == "task":
                self._done.labels(*what).inc()
                self._seconds.labels(*what).observe(event["seconds"])
            if kind == "died":
                self._died.inc()
        elif kind == "node" and event["state"] == "lost":
            self._nodes.dec()
            self._lost.inc()
            self._running.remove(node)
        elif kind == "node":
            self._nodes.inc()
            self._running.labels(node).set(0)
