"""From a model and token ids to per-token numbers of the responses: engines and their choice."""
