"""An echo over QUIC, both ends: quic.py server HOST PORT CERT KEY | quic.py client HOST PORT CA [NAME].
With a name, the client gets another port in the middle."""

import asyncio
import sys

from aioquic.asyncio import connect, serve
from aioquic.quic.configuration import QuicConfiguration


def echo(reader, writer):
    async def run():
        writer.write(await reader.read())
        writer.write_eof()

    asyncio.ensure_future(run())


async def server(host, port, cert, key):
    configuration = QuicConfiguration(is_client=False, alpn_protocols=["echo"])
    configuration.load_cert_chain(cert, key)
    await serve(host, int(port), configuration=configuration, stream_handler=echo)
    print("ready", flush=True)
    await asyncio.Future()


async def echoes(connection):
    reader, writer = await connection.create_stream()
    said = b"0123456789" * 20_000
    writer.write(said)
    writer.write_eof()
    assert await reader.read() == said


async def client(host, port, ca, name=None):
    configuration = QuicConfiguration(alpn_protocols=["echo"], server_name=name or "one.example")
    configuration.load_verify_locations(ca)
    async with connect(host, int(port), configuration=configuration) as connection:
        await echoes(connection)
        if name:
            old = connection._transport
            await asyncio.get_running_loop().create_datagram_endpoint(lambda: connection, local_addr=("::", 0))
            assert connection._transport is not old
            await echoes(connection)
            old.close()
    print("echoed", flush=True)


asyncio.run({"server": server, "client": client}[sys.argv[1]](*sys.argv[2:]))
