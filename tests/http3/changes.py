"""What must not disturb HTTP/3 clients: reloads, new certificates, a drain, other clients that misbehave."""

import asyncio
import os
import random
import socket
import ssl
import time

import aio
from aio import client, expect
from aioquic.h3.connection import H3_ALPN
from aioquic.quic.configuration import QuicConfiguration

# How long the configuration or the certificates change all the time.
SECONDS = 10


class Load:
    """Clients that ask all the time, on long connections and on new ones."""

    def __init__(self, port):
        self.port = port
        self.answered, self.failures = 0, []
        self.stopping = False

    async def long(self):
        """Many requests on one connection; a new connection after a GOAWAY or an end."""
        while not self.stopping:
            try:
                async with client(self.port) as it:
                    for n in range(500):
                        if self.stopping or it.gone.is_set():
                            break
                        await self.one(it, f"/bytes/{n * 40}", n * 40)
            except Exception as error:  # noqa: BLE001
                self.failures.append(repr(error))

    async def short(self):
        """One request on each connection."""
        while not self.stopping:
            try:
                async with client(self.port) as it:
                    await self.one(it, "/bytes/2000", 2000)
            except Exception as error:  # noqa: BLE001
                self.failures.append(repr(error))

    async def one(self, it, path, length):
        answer = await it.ask(path, seconds=20)
        if (answer.status, answer.length) == (200, length):
            self.answered += 1
        else:
            self.failures.append(f"{path}: {answer.status} {answer.length} {answer.reset} {it.ended}")

    async def run(self, change, seconds):
        tasks = [asyncio.create_task(task) for task in [self.long(), self.long(), self.long(), self.short()]]
        end = time.monotonic() + seconds
        count = 0
        while time.monotonic() < end:
            await change(count)
            count += 1
        self.stopping = True
        await asyncio.gather(*tasks)
        return count


def replace(path, text):
    with open(path + ".new", "w") as file:
        file.write(text)
    os.rename(path + ".new", path)


async def metric(admin, name):
    """The sum of a metric of the proxy."""
    reader, writer = await asyncio.open_connection("127.0.0.1", admin)
    writer.write(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    page = (await reader.read()).decode()
    writer.close()
    lines = [line.split() for line in page.splitlines() if line.startswith(name)]
    return sum(float(line[-1]) for line in lines)


async def reloads(world):
    """A changed configuration every 200 ms."""
    with open(world.config) as file:
        text = file.read()

    async def change(count):
        replace(world.config, f"{text}\n# {count}\n".replace("to: app", f"to: app, headers: {{response: {{set: "
                                                             f"{{x-count: '{count}'}}}}}}"))
        await asyncio.sleep(0.2)

    load = Load(world.port)
    before = await metric(world.admin, "ringway_config_reloads_total")
    count = await load.run(change, SECONDS)
    replace(world.config, text)
    applied = await metric(world.admin, "ringway_config_reloads_total") - before
    expect("failures", load.failures[:3], [])
    print(f"  {count} changes, {applied:.0f} reloads, {load.answered} requests, no failure")
    if applied < count / 3:
        raise AssertionError(f"only {applied} reloads")


async def rotation(world):
    """New certificates while clients ask."""
    async def change(_):
        world.issue_again()
        await asyncio.sleep(0.5)

    load = Load(world.port)
    count = await load.run(change, SECONDS)
    expect("failures", load.failures[:3], [])
    print(f"  {count} certificates, {load.answered} requests, no failure")


async def drain(world):
    """A request that is open during SIGTERM is answered, and the connection ends with H3_NO_ERROR."""
    async with client(world.port) as it:
        expect("before", (await it.ask("/a")).status, 200)
        large = asyncio.create_task(it.ask("/bytes/20000000"))
        await asyncio.sleep(0.1)
        world.proxy.terminate()
        answer = await large
        expect("the open request", (answer.status, answer.length), (200, 20_000_000))
        await asyncio.wait_for(it.gone.wait(), 10)
        expect("the end", it.ended.error_code, 0x100)
    await asyncio.to_thread(world.proxy.wait, 10)


async def strangers(world):
    """Garbage, unknown versions, half handshakes and slow readers cost other clients nothing."""
    noise = random.Random(7)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("127.0.0.1", world.port))
        sender.settimeout(5)

        def garbage():
            for _ in range(20_000):
                first = noise.choice([b"\xc3\0\0\0\1\x08", b"\x43", b"\xff\xde\xad\xbe\xef\x08", b""])
                try:
                    sender.send(first + noise.randbytes(noise.choice([0, 1, 20, 200, 1200, 1452])))
                except ConnectionRefusedError:
                    pass

        load = Load(world.port)
        flood = asyncio.create_task(asyncio.to_thread(garbage))
        stuck = []
        for _ in range(8):  # they ask for much, and then read nothing
            configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE,
                                              max_stream_data=20_000, max_data=100_000)
            it = aio.connect("127.0.0.1", world.port, configuration=configuration, create_protocol=aio.Client)
            connection = await it.__aenter__()
            stuck.append((it, connection))
            for _ in range(50):
                connection.begin("GET", "/bytes/10000000")
            connection._quic._local_max_data.value = 0
            connection.datagram_received = lambda *_: None

        async def wait(_):
            await asyncio.sleep(1)

        await load.run(wait, 5)
        await flood
        expect("failures", load.failures[:3], [])
        memory = await metric(world.admin, "process_resident_memory_bytes")
        print(f"  {load.answered} requests beside 20 000 datagrams of garbage and 400 streams that nobody reads; "
              f"{memory / 1e6:.0f} MB")
        for entered, connection in stuck:
            del connection.datagram_received  # it reads again, so that it can leave
            await entered.__aexit__(None, None, None)


async def retry(world):
    """With `retry: always`, each client proves its address first."""
    with open(world.config) as file:
        text = file.read()
    replace(world.config, text.replace("http3: true", "http3: {retry: always}"))
    for _ in range(200):
        async with client(world.port) as it:
            expect("with Retry", (await it.ask("/a")).status, 200)
        if await metric(world.admin, "ringway_listener_quic_retries_total") > 0:
            break
        await asyncio.sleep(0.05)
    else:
        raise AssertionError("no Retry was sent")
    replace(world.config, text)


async def eventually_open(world):
    """Waits until clients without a certificate may ask again."""
    for _ in range(200):
        async with client(world.port) as it:
            if (await it.ask("/a")).status == 200:
                return
        await asyncio.sleep(0.05)
    raise AssertionError("the old configuration does not come back")


async def identities(world):
    """Clients with certificates: those of the CA may ask, and a service sees their name. Others are refused."""
    with open(world.config) as file:
        text = file.read()
    replace(world.config, text.replace("key: key.pem}", "key: key.pem, client_ca: ca.pem}, "
                                       "forward_client_cert: set", 1))
    try:
        configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE)
        configuration.load_cert_chain(os.path.join(world.directory, "cert.pem"),
                                      os.path.join(world.directory, "key.pem"))
        for _ in range(200):
            async with aio.connect("127.0.0.1", world.port, configuration=configuration,
                                   create_protocol=aio.Client) as it:
                fields = (await it.ask("/fields")).body.decode().lower()
            if "x-forwarded-client-cert: " in fields and "localhost" in fields:
                break
            await asyncio.sleep(0.05)
        else:
            raise AssertionError(fields)
        # The handshake of TLS 1.3 is complete for a client before its certificate is checked.
        async with client(world.port) as it:
            it.begin("GET", "/a")
            await asyncio.wait_for(it.gone.wait(), 10)
        expect("the alert for a client without a certificate", it.ended.error_code, 0x100 + 116)
    finally:
        replace(world.config, text)
        await eventually_open(world)
