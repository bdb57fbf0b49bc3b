"""Stands in the way of the real one, for processes that are to run without it."""

raise ImportError("uvloop is not installed, as far as this process can tell")
