"""The protocol of PROTOCOL.md, without I/O: bytes and messages in, bytes and messages out."""
