"""A UDP relay that loses, repeats and delays datagrams, both ways:

  python relay.py PORT TARGET-PORT LOST% REPEATED% LATE%

A late datagram arrives after 2 to 20 ms, so later ones overtake it. The same arguments lose the same datagrams.
"""

import asyncio
import random
import sys

PORT, TARGET, LOST, REPEATED, LATE = map(int, sys.argv[1:])
LOOP = asyncio.new_event_loop()
DICE = random.Random(7)


def carry(send, data):
    if DICE.randrange(100) < LOST:
        return
    for _ in range(2 if DICE.randrange(100) < REPEATED else 1):
        if DICE.randrange(100) < LATE:
            LOOP.call_later(DICE.uniform(0.002, 0.02), send, data)
        else:
            send(data)


class Back(asyncio.DatagramProtocol):
    """The socket of one client towards the proxy."""

    def __init__(self, front, client):
        self.front, self.client = front, client

    def datagram_received(self, data, _):
        carry(lambda data: self.front.sendto(data, self.client), data)


class Front(asyncio.DatagramProtocol):
    """The socket that clients know."""

    def __init__(self):
        self.backs = {}

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, client):
        LOOP.create_task(self.forward(data, client))

    async def forward(self, data, client):
        if client not in self.backs:
            self.backs[client] = LOOP.create_task(LOOP.create_datagram_endpoint(
                lambda: Back(self.transport, client), remote_addr=("127.0.0.1", TARGET)))
        back, _ = await self.backs[client]
        carry(back.sendto, data)


LOOP.run_until_complete(LOOP.create_datagram_endpoint(Front, local_addr=("127.0.0.1", PORT)))
LOOP.call_later(300, LOOP.stop)
LOOP.run_forever()
