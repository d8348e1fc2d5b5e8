"""URIs of object stores: recognised, checked before use, and printed without secrets."""

import os
import re
import urllib.parse
from pathlib import Path

from autodo.errors import StoreError

SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss")
_SECRET = re.compile(r"key|secret|token|password|signature|sas", re.IGNORECASE)


def is_uri(text: str) -> bool:
    """Whether a text is a URI rather than a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None


def absolute(path: str | os.PathLike[str]) -> str:
    """Make a path absolute, so that it is valid in another working directory; a URI stays as it is."""
    text = os.fspath(path)
    return text if is_uri(text) else str(Path(text).expanduser().absolute())


def check_uri(uri: str) -> None:
    """Raise StoreError if a URI has an unknown scheme or contains credentials. Connects to nothing."""
    shown = without_secrets(uri)
    try:
        parts = urllib.parse.urlsplit(uri)
        query = urllib.parse.parse_qsl(parts.query, keep_blank_values=True)
    except ValueError as error:
        raise StoreError(f"{shown}: is not a URI: {error}") from None
    scheme = parts.scheme.lower()
    if scheme not in ("file", *SCHEMES):
        raise StoreError(f"{shown}: unknown scheme {scheme!r}; known: {', '.join(SCHEMES)}, file, or a path")
    if _user(uri) or any(_SECRET.search(key) for key, _ in query):
        raise StoreError(
            f"{shown}: contains credentials, which would appear in logs; set them in the environment "
            "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, GOOGLE_APPLICATION_CREDENTIALS, …)"
        )
    if scheme == "file" and parts.netloc not in ("", "localhost"):
        raise StoreError(f"{shown}: names the host {parts.netloc!r}; use file:///PATH")


def without_secrets(uri: str) -> str:
    """Format a URI for messages, without query, user name and password."""
    bare = re.sub(r"[?#].*", "", uri, flags=re.DOTALL)
    user = _user(uri)
    return bare.replace(f"{user}@", "***@", 1) if user else bare


def _user(uri: str) -> str:
    """Part before the @ of a URI that may be a secret."""
    scheme, _, rest = re.sub(r"[?#].*", "", uri, flags=re.DOTALL).partition("://")
    # With a colon, everything before the last @, because a secret key may contain slashes.
    user = rest.rpartition("@")[0]
    if ":" in user:
        return user
    # Azure containers and `anonymous` of Google also stand before an @.
    return rest.partition("/")[0].rpartition("@")[0] if scheme.lower() == "s3" else ""
