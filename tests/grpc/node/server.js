// A gRPC server that does what the messages ask for: server.js PLAIN_PORT TLS_PORT CERT KEY
'use strict';
const fs = require('fs');
const { grpc, Probe, SIZES, PATIENCE_MS, DETAILS, WHY } = require('./probe.js');

let hung = 0;
let cancelled = 0;
let waiting = [];

// The metadata of the client, with `prefix` before each name.
function echoed(call, prefix) {
  const own = new grpc.Metadata();
  for (const key of Object.keys(call.metadata.getMap()).filter((name) => name.startsWith('x-'))) {
    for (const value of call.metadata.get(key)) own.add(prefix + key, value);
  }
  return own;
}

function failure() {
  const metadata = new grpc.Metadata();
  metadata.set('why-bin', WHY);
  return { code: grpc.status.FAILED_PRECONDITION, details: DETAILS, metadata };
}

// Answers nothing until the call is cancelled.
function hang(call) {
  hung += 1;
  let seen = false;
  call.once('cancelled', () => {
    if (!seen) cancelled += 1;
    seen = true;
  });
}

// Answers when `count` calls are there.
function meet(count, answer) {
  waiting.push(answer);
  if (waiting.length < count) return;
  waiting.forEach((each) => each());
  waiting = [];
}

function unary(call, callback) {
  const request = call.request;
  const answer = (message) => callback(null, message, echoed(call, 'late-'));
  const echo = () => answer({ body: request.body, count: request.count });
  if (request.wish === 'FAIL') return callback(failure());
  call.sendMetadata(echoed(call, ''));
  if (request.wish === 'HANG') return hang(call);
  if (request.wish === 'MEET') return meet(request.count, echo);
  if (request.wish === 'TELL_HUNG') return answer({ count: hung, cancelled });
  if (request.wish !== 'TELL_DEADLINE') return echo();
  const deadline = call.getDeadline();
  return answer({ count: deadline === Infinity ? 0 : Math.round((+deadline - Date.now()) * 1e3) });
}

function upload(call, callback) {
  let count = 0;
  let size = 0;
  call.sendMetadata(echoed(call, ''));
  call.on('data', (request) => {
    if (request.wish === 'HANG') hang(call);
    count += 1;
    size += request.body.length;
  });
  call.on('end', () => callback(null, { body: Buffer.from(String(size)), count }, echoed(call, 'late-')));
}

async function download(call) {
  const request = call.request;
  if (request.wish === 'FAIL_LATE') {
    call.write({ body: request.body });
    return call.emit('error', failure());
  }
  call.sendMetadata(echoed(call, ''));
  const gone = new Promise((go) => { call.once('cancelled', go); });
  for (let count = 0; count < request.count && !call.cancelled; count += 1) {
    if (!call.write({ body: request.body, count })) {
      await Promise.race([gone, new Promise((go) => { call.once('drain', go); })]);
    }
  }
  if (request.wish === 'HANG') return hang(call);
  return call.end(echoed(call, 'late-'));
}

function chat(call) {
  call.sendMetadata(echoed(call, ''));
  call.on('data', (request) => {
    if (!call.write({ body: request.body, count: request.count })) {
      call.pause();
      call.once('drain', () => call.resume());
    }
  });
  call.on('end', () => call.end(echoed(call, 'late-')));
}

const [plain, tls, certificate, key] = process.argv.slice(2);
const server = new grpc.Server(SIZES);
server.addService(Probe.service, { Unary: unary, Upload: upload, Download: download, Chat: chat });
const pair = { cert_chain: fs.readFileSync(certificate), private_key: fs.readFileSync(key) };
const secure = grpc.ServerCredentials.createSsl(null, [pair]);
for (const [port, credentials] of [[plain, grpc.ServerCredentials.createInsecure()], [tls, secure]]) {
  server.bindAsync(`127.0.0.1:${port}`, credentials, (error) => { if (error) throw error; });
}
// At SIGTERM the server sends GOAWAY, and the open calls go on to their end.
process.on('SIGTERM', () => {
  server.tryShutdown(() => process.exit(0));
  setTimeout(() => process.exit(0), PATIENCE_MS).unref();
});
