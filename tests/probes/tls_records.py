"""A TLS client that breaks the protocol, and the alerts that a server must answer with.

Each case has the bytes that the client sends, and the set of alerts that RFC 8446 (TLS 1.3) and RFC 5246
(TLS 1.2) allow as the answer. With CLOSED in the set the server may also close without an alert (RFC 8446
6.2). An encrypted alert counts as ENCRYPTED: this client cannot decrypt it.
"""

import os
import socket
import struct

PATIENCE_S = 5
CLOSED, ENCRYPTED, WAITS, GOES_ON = "closed", "encrypted alert", "waits", "goes on"
NAMES = {0: "close_notify", 10: "unexpected_message", 20: "bad_record_mac", 22: "record_overflow",
         40: "handshake_failure", 47: "illegal_parameter", 50: "decode_error", 51: "decrypt_error",
         70: "protocol_version", 71: "insufficient_security", 80: "internal_error",
         86: "inappropriate_fallback", 100: "no_renegotiation", 109: "missing_extension",
         110: "unsupported_extension", 112: "unrecognized_name", 120: "no_application_protocol"}
CCS, ALERT, HANDSHAKE, DATA = 20, 21, 22, 23
KEY = bytes.fromhex("09") + bytes(31)


def record(kind, body, version=0x0303):
    return struct.pack("!BHH", kind, version, len(body)) + body


def message(kind, body):
    return bytes([kind]) + len(body).to_bytes(3, "big") + body


def vector(body, width):
    return len(body).to_bytes(width, "big") + body


def extension(kind, body):
    return struct.pack("!H", kind) + vector(body, 2)


def key_share(group, key):
    return extension(51, vector(struct.pack("!H", group) + vector(key, 2), 2))


GROUPS = extension(10, vector(b"\x00\x1d\x00\x17", 2))
SIGNATURES = extension(13, vector(b"\x04\x03\x08\x04\x04\x01\x08\x07", 2))
VERSIONS = extension(43, vector(b"\x03\x04", 1))
SHARE = key_share(0x1d, KEY)
MODES = extension(45, vector(b"\x01", 1))
PSK = extension(41, vector(vector(b"t" * 32, 2) + bytes(4), 2) + vector(vector(bytes(32), 1), 2))
SUITES_13, SUITES_12 = b"\x13\x01\x13\x02\x13\x03", bytes.fromhex("c02bc02fc02cc030cca9cca8")
BASIC_13 = [GROUPS, SIGNATURES, VERSIONS, SHARE]
BASIC_12 = [GROUPS, SIGNATURES, extension(23, b""), extension(0xff01, b"\x00")]


def hello(extensions, suites=SUITES_13, version=0x0303, compression=b"\x00", tail=b""):
    body = struct.pack("!H", version) + os.urandom(32) + vector(b"", 1) + vector(suites, 2)
    return message(1, body + vector(compression, 1) + vector(b"".join(extensions), 2) + tail)


def hello_13(extensions, **options):
    return record(HANDSHAKE, hello(extensions, **options), 0x0301)


def hello_12(extensions=None, suites=SUITES_12, **options):
    return record(HANDSHAKE, hello(BASIC_12 if extensions is None else extensions, suites, **options), 0x0301)


def replaced(old, new):
    return [new if one is old else one for one in BASIC_13]


def record_cases():
    """Wrong records (RFC 8446 5)."""
    whole = hello(BASIC_13)
    yield "record of more than 2^14 bytes", hello_13([*BASIC_13, extension(21, bytes(16400))]), {22, 50}
    yield "record of 65535 bytes", b"\x16\x03\x01\xff\xff" + bytes(200), {22, 50, CLOSED}
    yield "empty handshake record", record(HANDSHAKE, b""), {10, 50}
    yield "unknown record type after the hello", hello_12() + record(99, b"x"), {10, 50}
    yield "data before the handshake is over (1.2)", hello_12() + record(DATA, b"GET / HTTP/1.1\r\n\r\n"), {10}
    yield "data inside a fragmented hello", record(HANDSHAKE, whole[:40]) + record(DATA, b"x"), {10}
    yield "alert inside a fragmented hello", record(HANDSHAKE, whole[:40]) + record(ALERT, b"\x01\x00"), {10, CLOSED}
    yield "CCS with other content", hello_13(BASIC_13) + record(CCS, b"\x02"), {10, 47, ENCRYPTED}
    yield "CCS with two bytes", hello_13(BASIC_13) + record(CCS, b"\x01\x01"), {10, 47, 50, ENCRYPTED}
    yield "CCS before the key exchange (1.2)", hello_12() + record(CCS, b"\x01"), {10}
    yield "empty alert", hello_12() + record(ALERT, b""), {10, 50}
    yield "alert of three bytes", hello_12() + record(ALERT, b"\x02\x28\x00"), {10, 50, CLOSED}
    yield "the client's fatal alert", hello_12() + record(ALERT, b"\x02\x28"), {CLOSED}
    yield "plain record after the keys are there (1.3)", hello_13(BASIC_13) + record(HANDSHAKE, message(20, bytes(32))), \
        {10, 20, ENCRYPTED}
    yield "forged record after the keys are there (1.3)", hello_13(BASIC_13) + record(DATA, os.urandom(64)), \
        {20, ENCRYPTED}


def message_cases():
    """Malformed messages, and messages in the wrong order."""
    whole = hello(BASIC_13)
    yield "unknown handshake message", record(HANDSHAKE, message(77, b"x")), {10, 50}
    yield "Finished first", record(HANDSHAKE, message(20, bytes(12))), {10}
    yield "ServerHello first", record(HANDSHAKE, message(2, whole[4:])), {10, 47, 50}
    yield "hello that is shorter than it says", record(HANDSHAKE, message(1, whole[4:40])), {50}
    yield "hello with bytes behind its end", record(HANDSHAKE, message(1, whole[4:] + b"xx")), {50}
    yield "extensions longer than the hello", record(HANDSHAKE, message(1, whole[4:-4])), {50}
    yield "empty hello", record(HANDSHAKE, message(1, b"")), {50}
    yield "two hellos (1.2)", hello_12() + hello_12(), {10, 100}
    yield "two hellos (1.3)", hello_13(BASIC_13) + hello_13(BASIC_13), {10, ENCRYPTED}
    yield "Finished instead of the key exchange (1.2)", hello_12() + record(HANDSHAKE, message(20, bytes(12))), {10}
    yield "key exchange with an empty point (1.2)", hello_12() + record(HANDSHAKE, message(16, b"\x00")), {47, 50, 40}
    yield "key exchange with a short point (1.2)", hello_12() + record(HANDSHAKE, message(16, b"\x03abc")), {47, 50, 40}


def hello_cases():
    """ClientHello messages with values that a server cannot accept."""
    yield "SSL 3", hello_12(version=0x0300), {40, 70}
    yield "TLS 1.0", hello_12(version=0x0301), {70}
    yield "TLS 1.1", hello_12(version=0x0302), {70}
    yield "only TLS 1.4 in supported_versions", hello_13(replaced(VERSIONS, extension(43, b"\x02\x03\x05"))), {70}
    yield "only TLS 1.1 in supported_versions", hello_13(replaced(VERSIONS, extension(43, b"\x02\x03\x02"))), {70}
    yield "empty supported_versions", hello_13(replaced(VERSIONS, extension(43, b"\x00"))), {50, 47, 70}
    yield "no cipher suite in common (1.3)", hello_13(BASIC_13, suites=b"\x13\xff"), {40}
    yield "no cipher suite in common (1.2)", hello_12(suites=b"\x00\x2f\x00\x35"), {40}
    yield "no cipher suites at all", hello_13(BASIC_13, suites=b""), {40, 47, 50}
    yield "odd length of cipher suites", hello_13(BASIC_13, suites=b"\x13\x01\x13"), {50}
    yield "no null compression", hello_13(BASIC_13, compression=b"\x01"), {47, 50}
    yield "compression in TLS 1.3", hello_13(BASIC_13, compression=b"\x00\x01"), {47}
    yield "no compression method at all", hello_13(BASIC_13, compression=b""), {47, 50}
    yield "an extension twice", hello_13([*BASIC_13, GROUPS]), {47, 50}
    yield "no signature_algorithms (1.3)", hello_13(replaced(SIGNATURES, b"")), {109, 40}
    yield "no signature scheme in common", hello_13(replaced(SIGNATURES, extension(13, vector(b"\x02\x03", 2)))), \
        {40, ENCRYPTED}
    yield "empty signature_algorithms", hello_13(replaced(SIGNATURES, extension(13, b"\x00\x00"))), {50, 47, 40}
    yield "no supported_groups (1.3)", hello_13(replaced(GROUPS, b"")), {109, 40}
    yield "no key_share (1.3)", hello_13(replaced(SHARE, b"")), {109, 40}
    yield "no group in common", hello_13([extension(10, b"\x00\x02\x01\x00"), SIGNATURES, VERSIONS,
                                          key_share(0x100, KEY)]), {40}
    yield "key share of a wrong length", hello_13(replaced(SHARE, key_share(0x1d, KEY[:-1]))), {47, 50}
    yield "key share of zeros", hello_13(replaced(SHARE, key_share(0x1d, bytes(32)))), {47, 40}
    yield "key share of P-256 not on the curve", hello_13([extension(10, b"\x00\x02\x00\x17"), SIGNATURES, VERSIONS,
                                                          key_share(0x17, b"\x04" + bytes(63) + b"\x01")]), {47}
    yield "two key shares of one group", hello_13(replaced(SHARE, extension(51, vector(
        (b"\x00\x1d" + vector(KEY, 2)) * 2, 2)))), {47, GOES_ON}
    yield "pre_shared_key not last", hello_13([MODES, PSK, *BASIC_13]), {47}
    yield "pre_shared_key without its modes", hello_13([*BASIC_13, PSK]), {109, 47}
    yield "ALPN without a common protocol", hello_13([*BASIC_13, extension(16, vector(b"\x03foo", 2))]), \
        {120, ENCRYPTED, GOES_ON}
    yield "empty ALPN list", hello_13([*BASIC_13, extension(16, b"\x00\x00")]), {50, 47}
    yield "empty name in ALPN", hello_13([*BASIC_13, extension(16, vector(b"\x00", 2))]), {50, 47}
    yield "empty server name", hello_13([*BASIC_13, extension(0, vector(b"\x00\x00\x00", 2))]), {50, 47, 112, GOES_ON}
    yield "server name with a NUL", hello_13([*BASIC_13, extension(0, vector(b"\x00" + vector(b"a\x00b", 2), 2))]), \
        {50, 47, 112, GOES_ON}
    yield "renegotiation_info that is not empty", hello_12([GROUPS, SIGNATURES, extension(0xff01, b"\x01x")]), {40, 47}
    yield "two heartbeats in the extension", hello_13([*BASIC_13, extension(15, b"\x01"), extension(15, b"\x01")]), {47, 50}


def all_cases():
    for group in (record_cases, message_cases, hello_cases):
        yield from group()


def ask(port, sent):
    """Sends the bytes. Returns the number of the server's alert, CLOSED, ENCRYPTED, WAITS or GOES_ON."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as peer:
        received = b""
        try:
            peer.sendall(sent)
            while not is_final(received):
                portion = peer.recv(65536)
                if not portion:
                    break
                received += portion
        except TimeoutError:
            # The server sent no alert and did not close: it did not notice the fault, or it waits for more bytes.
            return GOES_ON if received else WAITS
        except OSError:
            pass
    return verdict(received)


def records(received):
    while len(received) >= 5:
        kind, _, length = struct.unpack("!BHH", received[:5])
        yield kind, received[5:5 + length]
        received = received[5 + length:]


def is_final(received):
    return any(kind == ALERT and len(body) == 2 and body[0] == 2 for kind, body in records(received))


def verdict(received):
    keys_changed = False
    last = None
    for kind, body in records(received):
        if kind == ALERT and len(body) == 2:
            return body[1]
        keys_changed |= kind == DATA
        last = (kind, len(body))
    # The length of an encrypted alert in TLS 1.3: two bytes, one for the type, 16 for the tag.
    return ENCRYPTED if keys_changed and last == (DATA, 19) else CLOSED


def shown(answer):
    return NAMES.get(answer, str(answer))
