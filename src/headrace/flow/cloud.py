"""Where object stores are, how they are opened, and what they refuse in the user's words."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

from headrace.errors import UserError

SCHEMES = ("s3", "gs", "az", "abfs", "abfss")
_TIMEOUT = timedelta(seconds=120)  # of one request: a piece of 16 MiB at 140 kB/s
_RETRIES = {
    "max_retries": 8,
    "retry_timeout": timedelta(seconds=120),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=10), "base": 2},
}


def is_url(place: Path | str) -> bool:
    """Whether a place is a URL, of whatever scheme, rather than a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(place)) is not None


def normal(url: str) -> str:
    """A URL of an object store without what does not matter, such as a slash at its end.

    Raises:
        UserError: its scheme is none that can be written to, it names no bucket, or it holds credentials.
    """
    found = re.fullmatch(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,2}([^/]*)/?(.*)", url)
    scheme, bucket, rest = found.groups() if found else ("", "", "")
    if scheme == "hf":
        fix = "Download it with `hf download --repo-type dataset`, and give the folder."
        raise UserError("Runs and sequences on the Hugging Face Hub are not opened in place.", url, fix)
    if scheme not in SCHEMES:
        fix = f"Give a folder, or a URL of {', '.join(f'{name}://' for name in SCHEMES[:3])}."
        raise UserError("There is no storage of this kind.", _without_credentials(url), fix)
    if "@" in bucket and not scheme.startswith("abfs"):
        fix = "Give them in the environment, such as AWS_ACCESS_KEY_ID."
        raise UserError("The URL holds credentials.", _without_credentials(url), fix)
    if not bucket:
        raise UserError("The URL names no bucket.", url, f"Write {scheme}://BUCKET/PATH.")
    parts = [part for part in rest.split("/") if part]
    if any(part in (".", "..") for part in parts):
        raise UserError("The URL has parts that are no names.", url, "Leave out `.` and `..`.")
    return "/".join([f"{scheme}://{bucket}", *parts])


def _without_credentials(url: str) -> str:
    return re.sub(r"(:/+)[^/]*@", r"\1", url)


def library(url: str) -> Any:
    """The client library.

    Raises:
        UserError: it is not installed.
    """
    try:
        import obstore
    except ImportError:
        fix = "Install it: pip install 'headrace[cloud]'"
        raise UserError("Object storage needs the package obstore.", url, fix) from None
    return obstore


def connect(url: str) -> Any:
    """The library's client of a URL, with what the environment says.

    Raises:
        UserError: the library is not installed, there are no credentials, or the environment holds nonsense.
    """
    library(url)
    from obstore import store

    client: dict[str, Any] = {"timeout": _TIMEOUT, "connect_timeout": timedelta(seconds=10)}
    options: dict[str, Any] = {"client_options": client, "retry_config": _RETRIES}
    if url.startswith("s3:"):
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        if endpoint:
            options["endpoint"] = endpoint
            client["allow_http"] = endpoint.startswith("http://")
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        options["region"] = region or "us-east-1"
        options |= _s3_credentials(url)
    try:
        return store.from_url(url, **options)
    except Exception as error:
        fix = "Check the URL and the environment."
        raise UserError(f"The storage cannot be opened: {beginning(error)}", url, fix) from None


# What tells the library itself where credentials are.
_OWN = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SKIP_SIGNATURE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


def _s3_credentials(url: str) -> dict[str, Any]:
    """Credentials that only boto3 finds: profiles, single sign-on.

    Raises:
        UserError: boto3 is installed and finds none either.
    """
    if any(os.environ.get(name) for name in _OWN):
        return {}
    try:
        import boto3
    except ImportError:
        return {}  # the machine's role is all that is left, which the library asks for
    try:
        session = boto3.session.Session()
        if session.get_credentials() is not None:
            from obstore.auth.boto3 import Boto3CredentialProvider

            return {"credential_provider": Boto3CredentialProvider(session)}
    except Exception as error:  # a profile that does not exist, an expired login
        raise _no_credentials(url, f": {beginning(error)}") from None
    raise _no_credentials(url)


def _no_credentials(where: str, more: str = "") -> UserError:
    return UserError(
        f"There are no credentials for this storage{more}.",
        where,
        "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or use a machine that has a role; for a "
        "public bucket set AWS_SKIP_SIGNATURE=true.",
    )


# Parts of what stores answer: what it means, and what helps.
_NO_ACCESS = (
    ("403 Forbidden", "AccessDenied"),
    "The storage refuses access.",
    "Ask for permission to list, read, write and delete there, or check which credentials are used.",
)
_REFUSALS = (
    (
        ("NoSuchBucket", "ContainerNotFound", "specified bucket does not exist", "InvalidBucketName"),
        "There is no such bucket.",
        "Check its name and the endpoint, or create it first.",
    ),
    (
        ("169.254.169.254", "CredentialsNotLoaded", "metadata.google.internal"),
        "There are no credentials for this storage.",
        "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS or AZURE_STORAGE_ACCOUNT_KEY.",
    ),
    (
        ("PermanentRedirect", "AuthorizationHeaderMalformed", "incorrectly configured region", "301 Moved"),
        "The bucket is in another region.",
        "Set AWS_REGION to the bucket's region.",
    ),
    (("RequestTimeTooSkewed",), "This machine's clock differs too much from the storage's.", "Set the clock."),
    (
        ("InvalidAccessKeyId", "SignatureDoesNotMatch", "401 Unauthorized", "InvalidToken", "ExpiredToken"),
        "The storage does not accept the credentials.",
        "Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN.",
    ),
    _NO_ACCESS,
)


def explain(error: BaseException, where: str) -> UserError | None:
    """The user-facing error for what a store refuses; None for what may pass, or is no fault of the user's."""
    matching = [row for row in _REFUSALS if says(error, *row[0])]
    if not matching and type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError"):
        matching = [_NO_ACCESS]
    return UserError(matching[0][1], where, matching[0][2]) if matching else None


def says(error: BaseException, *words: str) -> bool:
    """Whether an error's text has one of some words."""
    text = str(error)
    return any(word in text for word in words)


def beginning(error: BaseException) -> str:
    """The beginning of an error's text, on one line."""
    return " ".join(str(error).split("\n\nDebug source")[0].split())[:300]
