#!/usr/bin/env bash
# The Python package aioquic resets QUIC streams that it is not allowed to open yet, and so loses the
# connection.
#
# Version: aioquic 1.7.2. Client and server are aioquic itself. The server allows 128 streams
# (initial_max_streams_bidi). The client begins 130 and resets the last two, as an application does
# when a request is cancelled.
#
# Result: the data of the last two streams waits for MAX_STREAMS, as it should, but their
# RESET_STREAM frames are sent at once. The server closes the whole connection with
# STREAM_LIMIT_ERROR (RFC 9000 4.6), and the other 128 streams end with it. Without the resets,
# nothing happens. Output:
#   130 streams: open
#   130 streams, two of them reset: closed 0x4 Too many streams open
#
# Workaround: in the client, do not reset a stream before its number is allowed; in a server, do not
# allow much fewer streams at first than later.
#
# Needs python3 with venv, openssl and the package registry of pip. Fails if the behaviour changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check aioquic==1.7.2
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
  -keyout key.pem -out cert.pem 2> /dev/null
cat > case.py <<'PYTHON'
import asyncio
import ssl

from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.asyncio.client import connect
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated

ALLOWED = 128


class Client(QuicConnectionProtocol):
    end = None

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated):
            self.end = f"closed {event.error_code:#x} {event.reason_phrase}"


async def case(port, resets):
    config = QuicConfiguration(is_client=True, alpn_protocols=["a"], verify_mode=ssl.CERT_NONE,
                               server_name="localhost")
    async with connect("127.0.0.1", port, configuration=config, create_protocol=Client) as client:
        for n in range(ALLOWED + 2):
            stream = client._quic.get_next_available_stream_id()
            client._quic.send_stream_data(stream, b"x")
            if resets and n >= ALLOWED:
                client._quic.reset_stream(stream, 0)
        client.transmit()
        try:
            await asyncio.wait_for(client.ping(), 10)
        except ConnectionError:
            pass
        return client.end or "open"


async def main():
    config = QuicConfiguration(is_client=False, alpn_protocols=["a"])
    config.load_cert_chain("cert.pem", "key.pem")
    server = await serve("127.0.0.1", 0, configuration=config)
    port = server._transport.get_extra_info("sockname")[1]
    print("130 streams:", await case(port, False))
    print("130 streams, two of them reset:", await case(port, True))
    server.close()


asyncio.run(main())
PYTHON
seen=$(env/bin/python case.py 2> case.log) || { cat case.log; exit 1; }
expected='130 streams: open
130 streams, two of them reset: closed 0x4 Too many streams open'
echo "$seen"
[ "$seen" = "$expected" ] || { echo "the behaviour has changed"; exit 1; }
