"""Server-sent events on one port, and an echo by WebSocket on the other, for the page streaming.md."""

import asyncio
import sys

import websockets.asyncio.server


async def events(reader, writer):
    """Sends two events, and then nothing. The response never ends."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\n\r\n")
    for number in [1, 2]:
        writer.write(f"data: event {number}\n\n".encode())
        await writer.drain()
    await reader.read()
    writer.close()


async def echo(connection):
    async for message in connection:
        await connection.send(f"you said {message}")


async def main():
    await asyncio.start_server(events, "127.0.0.1", int(sys.argv[1]))
    async with websockets.asyncio.server.serve(echo, "127.0.0.1", int(sys.argv[2])):
        await asyncio.Future()


asyncio.run(main())
