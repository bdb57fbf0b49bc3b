"""One end of a libwsrx tunnel: `server LISTEN TARGET` or `client LISTEN URL`."""

import asyncio
import sys

import libwsrx


async def main(role: str, listen: str, target: str) -> None:
    if role == "server":
        await libwsrx.run_server(listen, target)
    else:
        endpoint = await libwsrx.ClientEndpoint.bind(listen, target)
        await asyncio.Event().wait()
        await endpoint.shutdown()  # never: it lives as long as somebody holds it


asyncio.run(main(*sys.argv[1:]))
