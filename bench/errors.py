"""What can go wrong with a measurement."""

from __future__ import annotations


class BenchError(Exception):
    """A measurement failed: a connection broke, a process died, a deadline passed."""


class Missing(BenchError):
    """A subject, or what a figure needs, is not to be had here; the message says why, and what to install."""


class Corrupted(BenchError):
    """Other bytes came out than went in."""
