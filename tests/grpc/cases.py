"""The cases of a gRPC client. Each takes the stub of a channel, makes calls, and raises when it fails."""

import threading
import time

import grpc

messages, services = grpc.protos_and_services("probe.proto")
Message = messages.Message
LARGEST = 8 << 20
PATIENCE_S = 20
DETAILS = "not today, \u2603 100%"
METADATA = (("x-word", "plain text"), ("x-twice", "1"), ("x-twice", "2"), ("x-raw-bin", bytes(range(256))))


def channel(target, ca=None):
    """A channel that shares no connection with other channels."""
    # grpcio derives no authority from a list of addresses.
    options = [("grpc.default_authority", "localhost"), ("grpc.max_receive_message_length", LARGEST),
               ("grpc.use_local_subchannel_pool", 1)]
    if ca is None:
        return grpc.insecure_channel(target, options)
    with open(ca, "rb") as file:
        return grpc.secure_channel(target, grpc.ssl_channel_credentials(file.read()), options)


def equal(found, wanted, what):
    if found != wanted:
        raise AssertionError(f"{what}: {found!r} instead of {wanted!r}")


def eventually(what, condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"gave up waiting for: {what}")
        time.sleep(0.005)


def fails(call, code):
    """Makes `call`, which must end with this code. Returns the error."""
    try:
        call()
    except grpc.RpcError as error:
        equal(error.code(), code, "code")
        return error
    raise AssertionError(f"{code} was to come")


def unary(stub):
    equal(stub.Unary(Message(body=b"hello", count=7)), Message(body=b"hello", count=7), "answer")
    equal(stub.Unary(Message()), Message(), "an empty answer")


def client_stream(stub):
    answer = stub.Upload(Message(body=b"x" * 1000) for _ in range(500))
    equal((answer.count, answer.body), (500, b"500000"), "what arrived")
    equal(stub.Upload(iter(())).count, 0, "of an empty stream")


def server_stream(stub):
    answers = list(stub.Download(Message(body=b"y" * 1000, count=500)))
    equal([answer.count for answer in answers], list(range(500)), "the order")
    equal(list(stub.Download(Message(count=0))), [], "an empty stream")


def both_streams(stub):
    """The client sends each message only when the server has returned the one before it."""
    returned = threading.Semaphore()

    def requests():
        for number in range(200):
            if not returned.acquire(timeout=PATIENCE_S):
                return
            yield Message(count=number)

    seen = []
    for answer in stub.Chat(requests()):
        seen.append(answer.count)
        returned.release()
    equal(seen, list(range(200)), "the conversation")


def large(stub):
    body = bytes(range(256)) * (4 << 12)
    equal(stub.Unary(Message(body=body)).body == body, True, "4 MiB to and fro")
    back = list(stub.Chat(Message(body=body, count=n) for n in range(3)))
    equal([(len(answer.body), answer.count) for answer in back], [(len(body), n) for n in range(3)], "a stream of them")


def deadline_reaches_server(stub):
    left = stub.Unary(Message(wish=messages.TELL_DEADLINE), timeout=15).count
    # The server's grpcio rounds the timeout up, by 1 % also without a proxy.
    if not 0 < left <= 15_200_000:
        raise AssertionError(f"{left} µs are left of 15 s")


def told(stub):
    answer = stub.Unary(Message(wish=messages.TELL_HUNG))
    return answer.count, answer.cancelled


def deadline_passes(stub):
    _, before = told(stub)
    fails(lambda: stub.Unary(Message(wish=messages.HANG), timeout=0.3), grpc.StatusCode.DEADLINE_EXCEEDED)
    eventually("the server to see that the deadline passed", lambda: told(stub)[1] == before + 1)


def cancels(stub, begin):
    """Starts a call with `begin`, cancels it as soon as the server has it, and waits until the server sees that."""
    hung, cancelled = told(stub)
    call = begin()
    eventually("the server to have the call", lambda: told(stub)[0] == hung + 1)
    call.cancel()
    eventually("the server to see that it is cancelled", lambda: told(stub)[1] == cancelled + 1)


def cancel_unary(stub):
    cancels(stub, lambda: stub.Unary.future(Message(wish=messages.HANG)))


def cancel_server_stream(stub):
    def begin():
        call = stub.Download(Message(count=3, wish=messages.HANG))
        equal([next(call).count for _ in range(3)], [0, 1, 2], "what came before")
        return call

    cancels(stub, begin)


def cancel_client_stream(stub):
    over = threading.Event()

    def requests():
        yield Message(wish=messages.HANG)
        over.wait(PATIENCE_S)

    cancels(stub, lambda: stub.Upload.future(requests()))
    over.set()


def trailers_only(stub):
    error = fails(lambda: stub.Unary(Message(wish=messages.FAIL)), grpc.StatusCode.FAILED_PRECONDITION)
    equal(error.details(), DETAILS, "details")
    equal(dict(error.trailing_metadata())["why-bin"], b"\x00\xff", "metadata of an error")


def error_in_trailers(stub):
    call = stub.Download(Message(body=b"first", wish=messages.FAIL_LATE))
    equal(next(call).body, b"first", "the message before")
    error = fails(lambda: next(call), grpc.StatusCode.FAILED_PRECONDITION)
    equal(error.details(), DETAILS, "details")
    equal(dict(error.trailing_metadata())["why-bin"], b"\x00\xff", "metadata of an error")


def unknown_method(stub):
    call = stub.channel.unary_unary("/ringway.probe.Probe/Nothing")
    fails(lambda: call(b""), grpc.StatusCode.UNIMPLEMENTED)


def metadata(stub):
    _, call = stub.Unary.with_call(Message(), metadata=METADATA)
    equal(joined(call.initial_metadata(), ""), joined(METADATA, ""), "metadata before")
    equal(joined(call.trailing_metadata(), "late-"), joined(METADATA, ""), "metadata after")


def joined(found, prefix):
    """The metadata of the case by name. The values of one name may arrive as a list with commas."""
    values = {key: [] for key, _ in METADATA}
    for key, value in found:
        if key.removeprefix(prefix) in values and key.startswith(prefix):
            values[key.removeprefix(prefix)].append(value)
    return {key: some[0] if key.endswith("-bin") else ", ".join(some) for key, some in values.items()}


def hundred_at_once(stub):
    """The server answers 100 calls only when it has all of them, so they must run at the same time."""
    before = stub.Unary(Message(wish=messages.MEET)).count
    equal(before, 0, "the first")
    calls = [stub.Unary.future(Message(wish=messages.MEET, count=100)) for _ in range(100)]
    equal({call.result(timeout=PATIENCE_S).count for call in calls}, {100}, "all of them")


CASES = [unary, client_stream, server_stream, both_streams, large, deadline_reaches_server, deadline_passes,
         cancel_unary, cancel_server_stream, cancel_client_stream, trailers_only, error_in_trailers,
         unknown_method, metadata, hundred_at_once]


def stub_of(one):
    stub = services.ProbeStub(one)
    stub.channel = one
    return stub
