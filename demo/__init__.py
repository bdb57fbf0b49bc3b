"""Demos: a sample server, self-checking traffic, and a complete tunnel.

`server.py` and `traffic.py` need nothing but Python's standard library, so that a bare
`python:3.13-slim` container can run them.
"""
