"""What the three services of tcp-ws-tunnel share.

`protocol` is pure: frames, control messages, the stream state machine, tokens.
`net` puts it on asyncio sockets, `agent` is what both agents are made of, and
`service` is everything around a process: settings, logs, metrics, signals.
"""

__version__ = "0.1.0"
