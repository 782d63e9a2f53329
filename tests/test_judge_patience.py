"""How long is waited before a call is made again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from harness.judge.asking.patience import LONGEST_WISH, Patience, wish

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0), ("0.25", 0.25), ("-3", 0.0), ("soon", None), ("", None),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0.0),
        ("Fri, 02 Jan 2026 03:05:05 -0000", 60.0),
    ],
)  # fmt: skip
def test_a_wish_is_a_number_of_seconds_or_a_date(value: str, seconds: float | None) -> None:
    assert wish({"retry-after": value}, NOW) == seconds


def test_a_date_beyond_all_calendars_asks_for_nothing() -> None:
    date = "Wed, 21 Oct 2015 99999999999999999999:28:00 GMT"
    assert wish({"retry-after": date}, NOW) is None


def test_who_asks_for_nothing_has_no_wish() -> None:
    assert wish({}, NOW) is None


def test_waits_double_up_to_the_longest_and_half_of_each_is_drawn() -> None:
    patience = Patience(9, first=1.0, longest=5.0)
    for tries, most in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 5.0), (9, 5.0)):
        draws = [patience.seconds(tries, None) or 0 for _ in range(300)]
        assert most / 2 <= min(draws) < 0.6 * most
        assert 0.9 * most < max(draws) <= most


def test_what_is_asked_for_is_the_least_that_is_waited() -> None:
    patience = Patience(9, first=0.1)
    assert patience.seconds(1, 3.0) == 3.0
    assert (patience.seconds(9, 3.0) or 0) > 3.0
    assert patience.seconds(1, LONGEST_WISH + 1) is None


def test_patience_ends_after_its_retries() -> None:
    patience = Patience(2)
    assert [patience.seconds(tries, None) is None for tries in (1, 2, 3)] == [False, False, True]
    assert Patience(0).seconds(1, None) is None


def test_a_very_long_row_of_failures_is_no_overflow() -> None:
    assert Patience(10_000).seconds(5000, None) is not None
