"""Call a user-defined function, whatever it may do."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from headrace.errors import UserError
from headrace.functions.decorators import takes_batches
from headrace.functions.document import documents_of, place_in
from headrace.functions.failures import Failed, failure

if TYPE_CHECKING:
    import pyarrow as pa


# A result must not depend on how much memory there is, and a file that changed is not its reader's fault.
_NOT_ITS_OWN = (KeyboardInterrupt, MemoryError, UserError)


class Function:
    """A user-defined function, loaded, with its parameters.

    Args:
        target: the function, or a class, which is instantiated here with the parameters.
        label: its name in messages, such as ``measures.py:fertility``.
        parameters: keyword arguments in addition to the document.
        stop: whether an exception it raises stops the run, rather than affecting only its document.

    Attributes:
        batches: whether it takes batches.

    Raises:
        UserError: it does not take these arguments, or the class cannot be instantiated.
    """

    def __init__(self, target: Callable[..., Any], label: str, parameters: dict[str, Any], stop: bool) -> None:
        self.label, self._stop = label, stop
        self.batches = takes_batches(target)
        if isinstance(target, type):
            self._bind(target, **parameters)
            try:
                self._call = target(**parameters)
            except (Exception, SystemExit) as error:
                raise UserError(f"{failure(label, error)}.", label, "The class could not be instantiated.") from None
            self._parameters: dict[str, Any] = {}
        else:
            self._call, self._parameters = target, parameters
        if not callable(self._call):
            raise UserError(f"{label} is not a function.", label, "Write `def __call__(self, document)` in the class.")
        self._bind(self._call, None, **self._parameters)

    def _bind(self, target: Callable[..., Any], *args: Any, **parameters: Any) -> None:
        try:
            inspect.signature(target).bind(*args, **parameters)
        except TypeError as error:
            what = "the document, " if args else ""
            raise UserError(
                f"{self.label} cannot be called with {what}{', '.join(parameters) or 'no arguments'}: {error}.",
                self.label,
                "A function takes the document (or batch, or stream) and the arguments under `with`.",
            ) from None
        except ValueError:  # its signature is not known
            pass

    def __call__(self, argument: Any) -> Any:
        """Call the function and return its result.

        Raises:
            Failed: it raised, or asked to exit.
        """
        try:
            return self._call(argument, **self._parameters)
        except _NOT_ITS_OWN:
            raise
        except BaseException as error:
            raise failure(self.label, error) from error

    def each(self, argument: Any) -> Iterator[Any]:
        """Call the function and yield what it yields.

        Raises:
            Failed: it raised, asked to exit, or is not a generator.
        """
        made = self(argument)
        if isinstance(made, str | bytes | dict) or not hasattr(made, "__iter__"):
            raise self.wrong(f"gives {type(made).__name__} where it must yield records")
        yield from self.each_of(made)

    def each_of(self, made: Any) -> Iterator[Any]:
        """Yield what a result of the function yields.

        Raises:
            Failed: it raised.
        """
        items = None
        while True:
            try:
                items = iter(made) if items is None else items
                item = next(items)
            except StopIteration:
                return
            except _NOT_ITS_OWN:
                raise
            except BaseException as error:
                raise failure(self.label, error) from error
            yield item

    def wrong(self, what: str) -> Failed:
        """The failure of returning something it must not."""
        return Failed(f"{self.label} {what}")

    def out_of_memory(self, document: str) -> UserError:
        """The error that stops the run if a call runs out of memory, since that depends on the machine."""
        return UserError(
            f"{self.label} ran out of memory.",
            f"document {document}",
            "Let the function take less, use fewer --workers, or a machine with more memory.",
        )

    def failed(self, error: Failed, document: str) -> str:
        """The text that goes to quarantine with a document.

        Raises:
            UserError: the recipe asks to stop on errors.
        """
        if self._stop:
            lines = "".join(f"\n  {line}" for line in error.trace)
            raise UserError(
                f"{error}{lines}",
                f"document {document}",
                "Fix the function, or set `on_error: quarantine` to set such documents aside.",
            )
        return str(error)


Note = Callable[[str], None]
"""Called with a document before a function is called with it."""


def results(
    function: Function, batch: pa.RecordBatch, read: Callable[[Any], Any], note: Note | None = None
) -> list[Any | Failed]:
    """Call a function on each document of a batch: its results, or how it failed.

    If a call with a whole batch fails, its halves are tried, down to the document that fails. Running out of memory on
    a single document stops the run.

    Args:
        function: the function.
        batch: documents with :data:`headrace.functions.document.COLUMNS`.
        read: converts a result to a value; raises TypeError or ValueError if it cannot.
        note: called with each document or, for a batch, its first.

    Raises:
        UserError: a document took more memory than there is.
    """
    if not function.batches:
        made: list[Any] = []
        for row, document in enumerate(documents_of(batch)):
            if note is not None:
                note(f"document {place_in(batch, row)}, in {function.label}")
            try:
                made.append(_read(function, read, function(document)))
            except Failed as failed:
                made.append(failed)
            except MemoryError:
                raise function.out_of_memory(place_in(batch, row)) from None
        return made
    if note is not None:
        note(f"document {place_in(batch, 0)}, in {function.label}")
    try:
        several = _several(function, batch)
    except (Failed, MemoryError) as failed:
        if batch.num_rows == 1:
            if isinstance(failed, MemoryError):
                raise function.out_of_memory(place_in(batch, 0)) from None
            return [failed]
        half = batch.num_rows // 2
        return [r for part in (batch.slice(0, half), batch.slice(half)) for r in results(function, part, read, note)]
    made = []
    for value in several:
        try:
            made.append(_read(function, read, value))
        except Failed as failed:
            made.append(failed)
    return made


def _read(function: Function, read: Callable[[Any], Any], made: Any) -> Any:
    try:
        return read(made)
    except (TypeError, ValueError) as error:
        raise function.wrong(str(error)) from None
    except _NOT_ITS_OWN:
        raise
    except Exception as error:  # a result with methods of its own
        raise failure(function.label, error) from error


def _several(function: Function, batch: pa.RecordBatch) -> Iterator[Any]:
    made = function(batch)
    if isinstance(made, str | bytes | dict | set | frozenset) or not hasattr(made, "__len__"):
        raise function.wrong(f"gives {type(made).__name__} where it must give an array or list")
    values = list(function.each_of(made))
    if len(values) != batch.num_rows:
        raise function.wrong(f"gives {len(values)} values for {batch.num_rows} documents")
    return iter(values)


def value_of(value: Any, kind: str) -> bool | int | float | str | None:
    """Convert a result to a value of a column.

    Args:
        value: what a function returned; NumPy and Arrow scalars count as Python's.
        kind: ``bool``, ``int``, ``float`` (which also takes integers) or ``str``.

    Raises:
        TypeError: it has another type.
        ValueError: the column cannot hold it.
    """
    for unpack in ("as_py", "item"):
        if hasattr(value, unpack) and not isinstance(value, str):
            value = getattr(value, unpack)()
    if value is None:
        return None
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind in ("int", "float") and isinstance(value, int) and not isinstance(value, bool):
        if not -(2**63) <= value < 2**63:
            raise ValueError("gives a whole number that does not fit in 64 bits")
        return value if kind == "int" else float(value)
    if kind == "float" and isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"gives {value}; where there is no value, return None")
        return value
    if kind == "str" and isinstance(value, str):
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            raise ValueError("gives text with a lone surrogate, which UTF-8 cannot hold")
        return value
    raise TypeError(f"gives {type(value).__name__} where its type is {kind}")
