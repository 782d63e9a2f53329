"""What a judge's answer means: from its first token's log-probabilities, or from its text."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

TOP = 5
"""Log-probabilities asked for: among these a label is looked for, as AlpacaEval does."""

_AROUND = " \t\r\n.,;:!\"'`*()[]{}<>"


class Token(NamedTuple):
    """A token that could have come first, and its log-probability in nats."""

    text: str
    logprob: float


def from_logprobs(top: Sequence[Token], sides: tuple[str, str]) -> float | None:
    """P(first label) among both labels, 0 to 1; None where neither is among the tokens.

    AlpacaEval's rule: exp(lp(first) - logsumexp(lp(first), lp(second))), an absent label having
    log-probability -inf. Tokens that are the same label but for spaces (some tokenizers join a
    space to a word) count together.
    """
    first, second = (_total([t.logprob for t in top if t.text.strip() == side]) for side in sides)
    if first == second == -math.inf:
        return None
    # A logistic function of the difference: exact in the tails, where a quotient is 0 / 0.
    if second == -math.inf or first == -math.inf:
        return float(second == -math.inf)
    difference = first - second
    if difference >= 0:
        return 1 / (1 + math.exp(-difference))
    return math.exp(difference) / (1 + math.exp(difference))


def _total(logprobs: Sequence[float]) -> float:
    known = [lp for lp in logprobs if lp > -math.inf]
    if not known:
        return -math.inf
    most = max(known)
    return most + math.log(sum(math.exp(lp - most) for lp in known))


def from_token(text: str, labels: Mapping[str, float]) -> float | None:
    """What an answer means that is a label and nothing else, but for quotes and full stops."""
    said = text.strip()
    return labels.get(said, labels.get(said.strip(_AROUND)))


def from_grade(text: str, labels: Mapping[str, float]) -> float | None:
    """What the one label means that occurs in a text; None where none or several do."""
    longest_first = sorted(labels, key=len, reverse=True)
    found = set(re.findall("|".join(map(re.escape, longest_first)), text))
    return labels[found.pop()] if len(found) == 1 else None
