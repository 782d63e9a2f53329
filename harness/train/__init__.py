"""Log-prob engines, the one loop, the reward model, the supervised warm start."""
