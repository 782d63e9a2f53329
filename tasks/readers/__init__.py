"""Real data of the tasks: rows of a data set to texts, prompts and pairs."""
