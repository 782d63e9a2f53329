"""An address is refused in words that give no secret away, and a key is asked for where one is."""

from __future__ import annotations

import pytest

from harness.address import DEFAULT_URL, check_key, check_url, cleaned, is_direct
from harness.errors import RequestError


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://[::1", "a host or a port that is none"),
        ("http://[::1]x/v1", "a host or a port that is none"),
        ("http://[v1.x]/v1", "a host or a port that is none"),
        ("http://127.0.0.1:notaport/v1", "a host or a port that is none"),
        ("http://127.0.0.1:99999/v1", "a host or a port that is none"),
        ("http://127.0.0.1:0/v1", "a host or a port that is none"),
        ("http://a..b/v1", "a host or a port that is none"),
        (f"http://{'a' * 64}/v1", "a host or a port that is none"),
        ("http://exa mple/v1", "a space or a character"),
        ("http://127.0.0.1/v1\n", "a space or a character"),
        ("http://127.0.0.1/\x1b[2J", "a space or a character"),
        ("127.0.0.1:8000", r"not 127\.0\.0\.1:8000"),
        ("localhost:8000/v1", "must be like http://"),
        ("ftp://127.0.0.1/v1", "must be like http://"),
        ("http:///v1", "must be like http://"),
        ("http://127.0.0.1/v1?key=1", "no user, password, query"),
        ("http://127.0.0.1/v1#key", "no user, password, query"),
    ],
)
def test_what_is_no_address_is_refused_in_words(url: str, said: str) -> None:
    with pytest.raises(RequestError, match=said) as caught:
        check_url(url, "judge.base_url")
    assert "judge.base_url" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "url",
    [
        "http://user:passw0rd@127.0.0.1/v1",
        "user:passw0rd@127.0.0.1/v1",
        "https:/user:passw0rd@127.0.0.1/v1",
        "https:user:passw0rd@127.0.0.1",
        "http://user:passw0rd/v1",
        "http://127.0.0.1/v1?key=passw0rd",
    ],
)
def test_a_password_in_an_address_is_never_said_again(url: str) -> None:
    with pytest.raises(RequestError) as caught:
        check_url(url)
    assert "passw0rd" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000/v1", "http://[::1]:8000/v1", "https://[fe80::1%eth0]/v1",
        "https://h/", "http://localhost", "https://b\u00fccher.example:443/v1", "http://a_b:65535",
    ],
)  # fmt: skip
def test_what_is_an_address_is_taken_without_its_last_slash(url: str) -> None:
    assert check_url(url) == url.rstrip("/")


def test_the_address_is_the_given_one_then_the_environments_then_openais(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert check_url(None) == DEFAULT_URL
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1/")
    assert check_url(None) == "http://127.0.0.1:1/v1"
    assert check_url("http://127.0.0.1:2/v1") == "http://127.0.0.1:2/v1"


@pytest.mark.parametrize("url", ["http://192.168.1.5:8000/v1", "http://0.0.0.0:8000/v1"])
def test_a_server_of_ones_own_without_a_key_gets_any_word(url: str) -> None:
    with pytest.raises(RequestError, match=rf"no key for {url}: .*OPENAI_API_KEY, to any word"):
        check_key(url)


def test_without_a_key_openai_is_not_asked_and_another_server_is_offered() -> None:
    with pytest.raises(RequestError, match="OPENAI_API_KEY, or name a server of your own in"):
        check_key(DEFAULT_URL)


def test_a_server_on_this_machine_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("http://127.0.0.1:8000/v1", "http://localhost/v1", "http://[::1]:1/v1"):
        assert check_key(url)
    monkeypatch.setenv("OPENAI_API_KEY", " word ")
    assert check_key("http://192.168.1.5:8000/v1") == "word"


def test_a_key_is_taken_out_of_words_wherever_it_stands() -> None:
    key = "sk-0123456789"
    assert cleaned(f"{key} is wrong: Bearer {key}.", key) == "[key] is wrong: Bearer [key]."
    assert cleaned("none of it", "none") == "none of it"  # a placeholder is no secret


def test_proxies_are_passed_by_for_this_machine_alone() -> None:
    assert is_direct("http://127.0.0.1:8000/v1")
    assert not is_direct("https://127.0.0.1:8000/v1")  # its certificates may be the environment's
    assert not is_direct("http://192.168.1.5:8000/v1")
