"""Where a served model is reached, and with which key: from the environment, never written."""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import SplitResult, urlsplit

from harness.errors import RequestError

DEFAULT_URL = "https://api.openai.com/v1"

_SHORTEST_SECRET = 8
"""Characters; a shorter key is a placeholder, and a word that any text may hold."""


def check_url(base_url: str | None, setting: str = "judge.base_url") -> str:
    """The end point's address: the given one, else `OPENAI_BASE_URL`, else OpenAI's own.

    Args:
        base_url: as it was given.
        setting: its name, for errors.

    Raises:
        RequestError: it is no http address, or holds a user, a password or a query.
    """
    url = (base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL).rstrip("/")
    # In the whole text: a slash too few, and the password is no part of what counts as the host.
    if any(sign in url for sign in "@?#"):
        raise RequestError(
            f"{setting} must hold no user, password, query or fragment: addresses are "
            "written into manifests. Put the key into the environment variable OPENAI_API_KEY"
        )
    if not url.isprintable() or " " in url:
        raise RequestError(f"{setting} holds a space or a character that no address has")
    parts = _split(url)
    if parts is None:  # what is there may be meant as a password
        raise RequestError(
            f"{setting} has a host or a port that is none: it must be like http://127.0.0.1:8000/v1"
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
        otherwise = (
            "or name a server of your own in OPENAI_BASE_URL" if base_url == DEFAULT_URL
            else "to any word, such as none, if that server asks for no key"
        )  # fmt: skip
        raise RequestError(
            f"no key for {base_url}: set the environment variable OPENAI_API_KEY, {otherwise}"
        )
    return key or "none"


def cleaned(words: str, key: str) -> str:
    """What a server said, without the key; to be called before anything is cut off."""
    return words.replace(key, "[key]") if len(key) >= _SHORTEST_SECRET else words


def is_direct(base_url: str) -> bool:
    """Whether an end point is reached past the environment's proxies: they cannot reach it."""
    return is_here(base_url) and base_url.startswith("http:")


def is_here(base_url: str) -> bool:
    """Whether an end point is on this machine."""
    host = urlsplit(base_url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _split(url: str) -> SplitResult | None:
    """The parts of an address; None where its host or its port cannot be one."""
    try:
        parts = urlsplit(url)
        (parts.hostname or "").encode("idna")
        _, bracket, behind = parts.netloc.rpartition("]")
        if bracket:
            ipaddress.IPv6Address(parts.hostname or "")
        sound = parts.port != 0 and (not bracket or behind[:1] in ("", ":"))
    except ValueError:
        return None
    return parts if sound else None
