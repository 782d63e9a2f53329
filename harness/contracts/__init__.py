"""What a plug-in promises: methods, tasks, and the log-probs they read."""
