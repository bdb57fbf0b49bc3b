"""A tunnel to look at: a sample server, traffic that checks itself, and the whole of it at once.

`server.py` and `traffic.py` need nothing but Python's standard library, so that a bare
`python:3.13-slim` container can run them.
"""
