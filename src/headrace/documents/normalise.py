"""Unicode normalization of document text."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

from headrace.errors import UserError

Normaliser = Callable[[str], str]


def nfc(text: str) -> str:
    """Normalization form C (Unicode Standard Annex 15).

    ASCII is detected in constant time, and `unicodedata.normalize` itself returns text that passes the quick check
    unchanged; calling `is_normalized` first would only check twice.
    """
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def normaliser(method: str) -> Normaliser:
    """The function for ``nfc``, ``ftfy`` (as in SlimPajama: ``ftfy.fix_text(text, normalization="NFC")``) or ``none``.

    Raises:
        UserError: ftfy is requested but not installed.
    """
    if method == "nfc":
        return nfc
    if method == "ftfy":
        ftfy = _ftfy()
        return lambda text: ftfy.fix_text(text, normalization="NFC")
    return lambda text: text


def versions(method: str) -> dict[str, str]:
    """Versions of the tables that determine the normalized text; part of the documents' identity."""
    if method == "nfc":
        return {"unicode": unicodedata.unidata_version}
    if method == "ftfy":
        return {"ftfy": _ftfy().__version__, "unicode": unicodedata.unidata_version}
    return {}


def _ftfy():  # type: ignore[no-untyped-def]
    try:
        import ftfy
    except ImportError:
        raise UserError(
            "The recipe asks for ftfy, which is not installed.",
            "documents.normalise: ftfy",
            "pip install 'headrace[faithful]', or use `normalise: nfc`.",
        ) from None
    return ftfy
