"""Sealed tunnels: what the relay carries and cannot read (PROTOCOL.md, "Sealed tunnels"). Pure."""
