// The cases of a gRPC client: client.js ADDRESS [CA]
// Prints a line for each case that fails, and last how many have passed. Exit code 1 when one fails.
'use strict';
const assert = require('assert');
const fs = require('fs');
const { setTimeout: pause } = require('timers/promises');
const { grpc, Probe, SIZES, PATIENCE_MS, DETAILS, WHY } = require('./probe.js');

const [address, ca] = process.argv.slice(2);
const credentials = ca ? grpc.credentials.createSsl(fs.readFileSync(ca))
  : grpc.credentials.createInsecure();
const name = ca ? { 'grpc.ssl_target_name_override': 'localhost' } : {};
const options = { ...SIZES, ...name, 'grpc.default_authority': 'localhost' };
const stub = new Probe(`ipv4:${address}`, credentials, options);
const bytes = (text, times = 1) => Buffer.from(text.repeat(times));

// A unary call: its message, and the metadata before and after it.
function unaryCall(message, metadata = new grpc.Metadata(), settings = { deadline: Date.now() + PATIENCE_MS }) {
  return new Promise((resolve, reject) => {
    const parts = {};
    const done = () => parts.status && parts.message && resolve(parts);
    const call = stub.Unary(message, metadata, settings, (error, answer) => {
      if (error) return reject(error);
      parts.message = answer;
      return done();
    });
    call.on('metadata', (initial) => { parts.initial = initial; });
    call.on('status', (status) => { parts.status = status; done(); });
  });
}

const ask = async (message, settings) => (await unaryCall(message, undefined, settings)).message;

async function fails(promise, code) {
  try {
    await promise;
  } catch (error) {
    assert.strictEqual(error.code, code, error.message);
    return error;
  }
  throw new Error(`code ${code} was to come`);
}

async function eventually(what, condition) {
  const deadline = Date.now() + PATIENCE_MS;
  while (!await condition()) {
    if (Date.now() > deadline) throw new Error(`gave up waiting for: ${what}`);
    await pause(5);
  }
}

// Sends messages on a stream as fast as it takes them, and ends it.
async function sendAll(call, messages) {
  for (const message of messages) {
    if (!call.write(message)) await new Promise((go) => call.once('drain', go));
  }
  call.end();
}

async function unary() {
  const answer = await ask({ body: bytes('hello'), count: 7 });
  assert.deepStrictEqual([answer.body.toString(), answer.count], ['hello', 7]);
  assert.deepStrictEqual((await ask({})).body.length, 0);
}

function uploaded(messages) {
  return new Promise((resolve, reject) => {
    const call = stub.Upload((error, answer) => (error ? reject(error) : resolve(answer)));
    sendAll(call, messages);
  });
}

async function clientStream() {
  const answer = await uploaded(Array(500).fill({ body: bytes('x', 1000) }));
  assert.deepStrictEqual([answer.count, answer.body.toString()], [500, '500000']);
  assert.strictEqual((await uploaded([])).count, 0);
}

async function downloaded(request) {
  const counts = [];
  for await (const answer of stub.Download(request)) counts.push(answer.count);
  return counts;
}

async function serverStream() {
  const numbers = [...Array(500).keys()];
  assert.deepStrictEqual(await downloaded({ body: bytes('y', 1000), count: 500 }), numbers);
  assert.deepStrictEqual(await downloaded({ count: 0 }), []);
}

// The client sends each message only when the server has returned the one before it.
async function bothStreams() {
  const call = stub.Chat();
  const seen = [];
  call.write({ count: 0 });
  for await (const answer of call) {
    seen.push(answer.count);
    if (seen.length < 200) call.write({ count: seen.length });
    else call.end();
  }
  assert.deepStrictEqual(seen, [...Array(200).keys()]);
}

async function large() {
  const body = Buffer.alloc(4 << 20, Buffer.from([...Array(256).keys()]));
  assert.ok((await ask({ body })).body.equals(body), '4 MiB to and fro');
  const call = stub.Chat();
  const sending = sendAll(call, [0, 1, 2].map((count) => ({ body, count })));
  const counts = [];
  for await (const answer of call) {
    assert.ok(answer.body.equals(body), 'a stream of them');
    counts.push(answer.count);
  }
  await sending;
  assert.deepStrictEqual(counts, [0, 1, 2]);
}

async function deadlineReachesServer() {
  const { count } = await ask({ wish: 'TELL_DEADLINE' }, { deadline: Date.now() + 15000 });
  assert.ok(count > 0 && count <= 15200000, `${count} µs are left of 15 s`);
}

const told = () => ask({ wish: 'TELL_HUNG' });

async function deadlinePasses() {
  const before = (await told()).cancelled;
  const call = ask({ wish: 'HANG' }, { deadline: Date.now() + 300 });
  await fails(call, grpc.status.DEADLINE_EXCEEDED);
  await eventually('the server to see that the deadline passed',
    async () => (await told()).cancelled === before + 1);
}

// Starts a call with `begin`, cancels it when the server has it and `ready` holds, and waits until
// the server sees that.
async function cancels(begin, ready = () => true) {
  const before = await told();
  let ended;
  const over = new Promise((resolve) => { ended = resolve; });
  const call = begin((error) => ended(error));
  await eventually('the server to have the call',
    async () => (await told()).count === before.count + 1 && ready());
  call.cancel();
  assert.strictEqual((await over).code, grpc.status.CANCELLED);
  await eventually('the server to see that it is cancelled',
    async () => (await told()).cancelled === before.cancelled + 1);
}

const cancelUnary = () => cancels((ended) => stub.Unary({ wish: 'HANG' }, ended));

async function cancelServerStream() {
  const counts = [];
  await cancels((ended) => {
    const call = stub.Download({ count: 3, wish: 'HANG' });
    call.on('data', (answer) => counts.push(answer.count));
    call.on('error', ended);
    return call;
  }, () => counts.length === 3);
  assert.deepStrictEqual(counts, [0, 1, 2]);
}

const cancelClientStream = () => cancels((ended) => {
  const call = stub.Upload(ended);
  call.write({ wish: 'HANG' });
  return call;
});

function isFailure(error) {
  assert.strictEqual(error.details, DETAILS);
  assert.ok(error.metadata.get('why-bin')[0].equals(WHY), 'metadata of an error');
}

const trailersOnly = async () => isFailure(
  await fails(ask({ wish: 'FAIL' }), grpc.status.FAILED_PRECONDITION));

async function errorInTrailers() {
  const before = [];
  const read = async () => {
    const call = stub.Download({ body: bytes('first'), wish: 'FAIL_LATE' });
    for await (const answer of call) before.push(answer.body.toString());
  };
  isFailure(await fails(read(), grpc.status.FAILED_PRECONDITION));
  assert.deepStrictEqual(before, ['first']);
}

async function unknownMethod() {
  const plain = (value) => value;
  const call = new Promise((resolve, reject) => {
    stub.makeUnaryRequest('/ringway.probe.Probe/Nothing', plain, plain, Buffer.alloc(0),
      (error, answer) => (error ? reject(error) : resolve(answer)));
  });
  await fails(call, grpc.status.UNIMPLEMENTED);
}

async function metadata() {
  const raw = Buffer.from([...Array(256).keys()]);
  const own = new grpc.Metadata();
  own.set('x-word', 'plain text');
  own.add('x-twice', '1');
  own.add('x-twice', '2');
  own.set('x-raw-bin', raw);
  const { initial, status } = await unaryCall({}, own);
  for (const [prefix, found] of [['', initial], ['late-', status.metadata]]) {
    const text = (key) => found.get(prefix + key).join(', ');
    assert.deepStrictEqual([text('x-word'), text('x-twice')], ['plain text', '1, 2'], prefix);
    assert.ok(found.get(`${prefix}x-raw-bin`)[0].equals(raw), `${prefix}x-raw-bin`);
  }
}

// The server answers 100 calls only when it has all of them, so they must run at the same time.
async function hundredAtOnce() {
  const calls = [...Array(100)].map(() => ask({ wish: 'MEET', count: 100 }));
  for (const answer of await Promise.all(calls)) assert.strictEqual(answer.count, 100);
}

const CASES = [unary, clientStream, serverStream, bothStreams, large, deadlineReachesServer,
  deadlinePasses, cancelUnary, cancelServerStream, cancelClientStream, trailersOnly,
  errorInTrailers, unknownMethod, metadata, hundredAtOnce];

async function limited(run) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error('the case does not end')), 3 * PATIENCE_MS);
  });
  try {
    await Promise.race([run(), late]);
  } finally {
    clearTimeout(timer);
  }
}

async function main() {
  let passed = 0;
  for (const run of CASES) {
    try {
      await limited(run);
      passed += 1;
    } catch (error) {
      console.log(`!! ${run.name}: ${String(error.stack).slice(0, 600)}`);
    }
  }
  console.log(`${passed} of ${CASES.length}`);
  process.exit(passed === CASES.length ? 0 : 1);
}

main();
