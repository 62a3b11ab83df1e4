"""Serve a target on this machine until Ctrl-C."""

from __future__ import annotations

import secrets
import socket
import webbrowser
from collections.abc import Callable

import uvicorn

from headrace.errors import UserError
from headrace.run_folder import without_pandas
from headrace.view.app import application
from headrace.view.guard import LOOPBACK
from headrace.view.memory import return_memory
from headrace.view.target import Target

PORT = 8765  # the first that is tried
EVERYWHERE = ("0.0.0.0", "::", "")  # all addresses of this machine: none that others can ask for
TRIED = 50  # ports, if none was asked for


def serve(target: Target, host: str, port: int | None, browser: bool, say: Callable[[str], None]) -> None:
    """Serve until interrupted.

    Args:
        target: what is shown.
        host: the address to listen on. One that others can reach needs a token, which is part of the address printed.
        port: the port; None takes the first free one from :data:`PORT` on, 0 any.
        browser: open a browser.
        say: prints a line.

    Raises:
        UserError: the address cannot be listened on.
    """
    return_memory()
    without_pandas(target.recipe if target.is_run else None)
    token = None if host in LOOPBACK else secrets.token_urlsafe(24)
    listening = _listen(host, port)
    number = listening.getsockname()[1]

    def address(name: str) -> str:
        shown = f"[{name}]" if ":" in name else name
        return f"http://{shown}:{number}/" + (f"?token={token}" if token else "")

    everywhere = host in EVERYWHERE
    say(f"Viewing {target.path} at {address(socket.gethostname() if everywhere else host)} (Ctrl-C stops)")
    if browser:
        webbrowser.open(address("localhost" if everywhere else host))
    config = uvicorn.Config(
        application(target, token),
        log_level="warning",
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=1,  # streams of a page that is still open
    )
    uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int | None) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    wanted = range(PORT, PORT + TRIED) if port is None else [port]
    failed: OSError | None = None
    for number in wanted:
        listening = socket.socket(family)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, number))
        except OSError as error:
            listening.close()
            failed = error
            continue
        listening.listen(128)
        return listening
    assert failed is not None
    said = failed.strerror or str(failed)
    raise UserError(f"This address cannot be listened on: {said}.", f"{host}:{wanted[0]}", "Choose another --port.")
