"""The relay of an evening: FastAPI, a queue, two tasks a pair."""

import asyncio
import sys

import uvicorn
from fastapi import FastAPI, WebSocket

app = FastAPI()
hosts: asyncio.Queue[tuple[WebSocket, asyncio.Event]] = asyncio.Queue()


async def pump(source: WebSocket, sink: WebSocket) -> None:
    while True:
        await sink.send_bytes(await source.receive_bytes())


async def host(websocket: WebSocket) -> None:
    await websocket.accept()
    done = asyncio.Event()
    await hosts.put((websocket, done))
    await done.wait()


async def client(websocket: WebSocket) -> None:
    await websocket.accept()
    other, done = await hosts.get()
    pumps = [asyncio.create_task(pump(websocket, other)), asyncio.create_task(pump(other, websocket))]
    await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    for task in pumps:
        task.cancel()
    await asyncio.gather(*pumps, other.close(), websocket.close(), return_exceptions=True)
    done.set()


app.add_api_websocket_route("/host", host)
app.add_api_websocket_route("/client", client)

if __name__ == "__main__":
    deflate = "--deflate" in sys.argv
    uvicorn.run(app, port=int(sys.argv[1]), log_level="error", ws="websockets", ws_per_message_deflate=deflate)
