"""Models that give a text a reward or the probability of a label."""
