"""Intervals, tests and corrections: pure functions of the scores table."""
