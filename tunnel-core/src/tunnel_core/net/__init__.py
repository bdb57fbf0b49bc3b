"""The protocol on asyncio sockets: legs, local TCP connections, HTTP, dialing."""
