"""The host-agent: stands beside the server application and carries streams to it."""
