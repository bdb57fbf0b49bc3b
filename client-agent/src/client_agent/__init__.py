"""The client-agent: listens where the client application connects, and carries streams from there."""
