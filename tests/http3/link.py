"""A bad link between two network namespaces: `python link.py PID SEED PERCENT DELAY-MS`.

It joins this namespace, as 10.9.0.1, and that of the process PID, as 10.9.0.2, by two TUN devices. It loses PERCENT of
the IP packets, repeats as many, and holds as many back, so that later packets overtake them. All others need
DELAY-MS. So it is what netem does, on a kernel without it.

It prints `ready`. When its input ends, it prints the numbers of the packets that it has carried, lost, repeated and held back.
"""

import asyncio
import fcntl
import os
import random
import struct
import subprocess
import sys

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
NEAR, FAR = "10.9.0.1", "10.9.0.2"
MTU = 1500
# A late packet needs this many times the delay of the others.
LATE = 3


def device(name):
    """Makes a TUN device in this namespace. It lives as long as its file is open."""
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return file


def ip(line, within=()):
    subprocess.run([*within, "ip", *line.split()], check=True)


def join(pid):
    """Makes both devices. Returns their files: near and far."""
    files = [device("near"), device("far")]
    ip(f"link set far netns {pid}")
    for name, own, other, within in (("near", NEAR, FAR, ()), ("far", FAR, NEAR, ("nsenter", "-t", pid, "-n"))):
        ip(f"addr add {own} peer {other} dev {name}", within)
        ip(f"link set {name} mtu {MTU} txqueuelen 5000 up", within)
    return files


class Link:
    def __init__(self, loop, seed, percent, delay_s):
        self.loop, self.dice, self.share, self.delay_s = loop, random.Random(seed), percent / 100, delay_s
        self.carried = self.lost = self.repeated = self.late = 0

    def read(self, source, target):
        """Takes the packets that wait at `source`."""
        for _ in range(64):
            try:
                packet = os.read(source, 65536)
            except BlockingIOError:
                return
            self.carry(packet, target)

    def carry(self, packet, target):
        roll = self.dice.random
        self.carried += 1
        if roll() < self.share:
            self.lost += 1
            return
        copies = 1 + (roll() < self.share)
        self.repeated += copies - 1
        for _ in range(copies):
            late = roll() < self.share
            self.late += late
            self.loop.call_later(self.delay_s * (LATE if late else 1), self.write, packet, target)

    @staticmethod
    def write(packet, target):
        try:
            os.write(target, packet)
        except BlockingIOError:  # its queue is full, so the packet is lost, as on any link
            pass


async def main(pid, seed, percent, delay_ms):
    loop = asyncio.get_running_loop()
    link = Link(loop, seed, percent, delay_ms / 1000)
    near, far = join(pid)
    loop.add_reader(near, link.read, near, far)
    loop.add_reader(far, link.read, far, near)
    print("ready", flush=True)
    ended = asyncio.Event()
    loop.add_reader(sys.stdin, ended.set)
    await asyncio.wait_for(ended.wait(), 600)
    print(link.carried, link.lost, link.repeated, link.late, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:5])))
