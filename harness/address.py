"""Where a served model is reached, and with which key: from the environment, never written."""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit

from harness.errors import RequestError

DEFAULT_URL = "https://api.openai.com/v1"


def check_url(base_url: str | None, setting: str = "judge.base_url") -> str:
    """The end point's address: the given one, else `OPENAI_BASE_URL`, else OpenAI's own.

    Args:
        base_url: as it was given.
        setting: its name, for errors.

    Raises:
        RequestError: it is no http address, or holds a user, a password or a query.
    """
    url = (base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL).rstrip("/")
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise RequestError(
            f"{setting} must hold no user, password, query or fragment: addresses are "
            "written into manifests. Put the key into the environment variable OPENAI_API_KEY"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RequestError(f"{setting} must be like http://127.0.0.1:8000/v1, not {url}")
    return url


def check_key(base_url: str) -> str:
    """The key for an end point; a placeholder for one on this machine where none is set.

    Raises:
        RequestError: there is none, and the end point is elsewhere.
    """
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if key and not (key.isascii() and key.isprintable()):
        raise RequestError("OPENAI_API_KEY holds characters that no key has: set it anew")
    if not key and not is_here(base_url):
        raise RequestError(
            f"no key for {base_url}: set the environment variable OPENAI_API_KEY, or name a server "
            "of your own with judge.base_url (or OPENAI_BASE_URL)"
        )
    return key or "none"


def is_here(base_url: str) -> bool:
    """Whether an end point is on this machine."""
    host = urlsplit(base_url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
