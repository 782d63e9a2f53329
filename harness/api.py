"""All that a plug-in may import from the harness."""

from harness.contracts.logprobs import LogProbs, PairLogProbs, PerPair
from harness.contracts.method import Method, State, method
from harness.contracts.task import Corpus, Decoding, Metric, SmallModel, Task, TaskPlugin, task
from harness.errors import DataError, RequestError
from harness.records import Completion, Pair, Prompt

__all__ = [
    "Completion",
    "Corpus",
    "DataError",
    "Decoding",
    "LogProbs",
    "Method",
    "Metric",
    "Pair",
    "PairLogProbs",
    "PerPair",
    "Prompt",
    "RequestError",
    "SmallModel",
    "State",
    "Task",
    "TaskPlugin",
    "method",
    "task",
]
