"""What a board says of its judge, from the facts of the stages that judged."""

from __future__ import annotations

from typing import Any

from harness.judge.words import judging_words


def facts(**more: Any) -> dict[str, Any]:
    return {
        "kind": "openai", "model": "m", "template": "summary", "verdicts": 100, "equal": 2,
        "reading": {"used": "text", "why": "it gives no log-probabilities"},
        "unreadable": {"verdicts": 1, "answers": 1, "said": []},
        "position_effect": {"value": 0.1, "low": 0.0, "high": 0.2},
        "consistency": {"value": 0.9, "low": 0.8, "high": 1.0}, "tokens": {"input": 1000}, **more,
    }  # fmt: skip


def test_sums_are_over_all_rows_and_ranges_from_row_to_row() -> None:
    other = facts(position_effect={"value": -0.05, "low": 0.0, "high": 0.0})
    who, order, taken = judging_words([facts(), other])
    assert "m by template 'summary'" in who
    assert "read from the text of its answers (it gives no log-probabilities)" in who
    assert "200 answers" in who
    assert "4 of them equal" in who
    assert "2 without a verdict" in who
    assert "-5.0 to +10.0 points" in order
    assert taken.endswith("2,000 input tokens")


def test_costs_are_added_by_currency() -> None:
    cost = {"currency": "USD", "all": 1.5, "new": 0.5, "calls_without_usage": 0}
    assert "3.00 USD" in judging_words([facts(cost=cost), facts(cost=cost)])[-1]


def test_a_judge_whose_order_decides_is_said_to_say_little() -> None:
    low = {"value": 0.2, "low": 0.1, "high": 0.3}
    assert any("say little" in line for line in judging_words([facts(consistency=low)]))
    assert not any("say little" in line for line in judging_words([facts()]))


def test_a_rule_has_no_order_and_costs_nothing() -> None:
    rule = facts(kind="rule", tokens={})
    assert judging_words([rule])[0].startswith("judged by the world's own rule")
    assert len(judging_words([rule])) == 1


def test_what_a_reward_model_could_not_read_is_counted() -> None:
    model = facts(kind="reward-model", **{"model facts": {"cut": {"prompts": 3, "answers": 0}}})
    assert any(line.startswith("6 prompts were cut") for line in judging_words([model, model]))


def test_nothing_is_said_where_nothing_was_judged() -> None:
    assert judging_words([]) == []
