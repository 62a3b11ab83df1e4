"""Access to remote files, where each file system raises exceptions of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from headrace.errors import UserError


@contextmanager
def remote_errors(url: str) -> Iterator[None]:
    """Turn any exception while accessing a remote file into a user-facing error.

    Raises:
        UserError: for any exception.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError("The file does not exist.", url, "Fix the path or its permissions.") from None
    except ImportError as error:
        name = getattr(error.__cause__, "name", None) or error.name
        fix = f"{sys.executable} -m pip install {name}" if name else "Install the library it names."
        raise UserError(f"The URL needs a library that is not installed: {error}.", url, fix) from None
    except Exception as error:
        told = f"{type(error).__name__}: {error}".splitlines()[0]
        fix = "Check the address, the network and the credentials, or use local files."
        raise UserError(f"The URL cannot be reached: {told[:300]}", url, fix) from error
