"""What calls cost: a TOML file of the user's, one table for each model.

["gpt-4o"]
input = 2.5          # per million tokens
output = 10.0
currency = "USD"     # the default
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import RequestError, unknown

_PER = 1e6
_KEYS = {"input", "output", "currency"}


@dataclass(frozen=True)
class Price:
    """Of one model's tokens.

    Attributes:
        input: per million tokens of a question.
        output: per million tokens of an answer.
        currency: of both.
    """

    input: float
    output: float
    currency: str = "USD"

    def of(self, input_tokens: float, output_tokens: float) -> float:
        """The cost of so many tokens, in the currency."""
        return (input_tokens * self.input + output_tokens * self.output) / _PER


def load_price(file: str, model: str) -> Price:
    """The price of a model, from the user's file.

    Raises:
        RequestError: the file cannot be read, does not name the model, or holds no price.
    """
    try:
        table = tomllib.loads(Path(file).expanduser().read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RequestError(f"price table {file}: cannot be read: {error}") from error
    if model not in table:
        raise unknown(f"model in the price table {file}", model, table)
    return _price(file, model, table[model])


def _price(file: str, model: str, row: Any) -> Price:
    where = f"price table {file}: '{model}'"
    if not isinstance(row, dict):
        raise RequestError(f"{where} must be a table: {{input = 2.5, output = 10.0}}")
    if foreign := sorted(row.keys() - _KEYS):
        raise RequestError(f"{where}: {unknown('key', foreign[0], _KEYS)}")
    currency = row.get("currency", "USD")
    if not isinstance(currency, str):
        raise RequestError(f"{where}: 'currency' must be a word")
    amount = {key: _amount(where, key, row.get(key)) for key in ("input", "output")}
    return Price(amount["input"], amount["output"], currency)


def _amount(where: str, key: str, value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        amount = float(value)
        if math.isfinite(amount) and amount >= 0:
            return amount
    raise RequestError(f"{where}: '{key}' must be the price of a million tokens")
