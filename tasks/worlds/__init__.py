"""Embedded worlds: stand-ins for data whose true reward is known exactly."""
