// The client of transfers: client.js PORT BYTES STANDING_BYTES NARROW_BYTES AT_ONCE
// Prints a line for each case, and what is wrong. Exit code 1 when something is.
'use strict';
const http = require('http');
const http2 = require('http2');
const { FILES, send, Check } = require('./content.js');

const [port, bytes, standing, narrowBytes, atOnce] = process.argv.slice(2).map(Number);
const LIMIT_MS = 900000;
let last = 0;

// HTTP/1.1: a connection for each transfer at a time.
class One {
  constructor() {
    this.agent = new http.Agent({ keepAlive: true, maxSockets: Infinity });
  }

  begin(method, path, size) {
    const headers = size === undefined ? {} : { 'content-length': size };
    const request = http.request({ port, host: '127.0.0.1', method, path, headers, agent: this.agent });
    const response = new Promise((resolve, reject) => {
      request.on('response', (answer) => resolve([answer.statusCode, answer]));
      request.on('error', reject);
    });
    return { request, response };
  }

  close() { this.agent.destroy(); }
}

// HTTP/2: one connection for all transfers.
class Two {
  constructor(settings = {}) {
    this.session = http2.connect(`http://127.0.0.1:${port}`, { settings });
    this.session.on('error', (error) => console.log(`!! connection: ${error.message}`));
  }

  begin(method, path) {
    const request = this.session.request({ ':method': method, ':path': path }, { endStream: method === 'GET' });
    const response = new Promise((resolve, reject) => {
      request.on('response', (head) => resolve([head[':status'], request]));
      request.on('error', reject);
    });
    return { request, response };
  }

  close() { this.session.destroy(); }
}

// Reads a body. `held` completes before the first byte is read.
async function read(stream, take, held) {
  await held;
  stream.on('data', take);
  await new Promise((resolve, reject) => {
    stream.on('end', resolve);
    stream.on('error', reject);
    stream.on('aborted', () => reject(new Error('cut off')));
  });
}

async function text(response) {
  const [status, stream] = await response;
  let said = '';
  await read(stream, (chunk) => { said += chunk; });
  return status === 200 ? said : `status ${status}: ${said}`;
}

// What is wrong with a download or an upload; nothing for a right one.
async function download(client, to, size, held) {
  const number = (last += 1) % FILES;
  const { request, response } = client.begin('GET', `/${to}/${number}/${size}`);
  if (client instanceof One) request.end();
  const [status, stream] = await response;
  const check = new Check(number);
  await read(stream, (chunk) => check.take(chunk), held);
  return status === 200 ? check.verdict(size) : `status ${status}`;
}

async function upload(client, to, size, word = '') {
  const number = last += 1;
  const { request, response } = client.begin('PUT', `/${to}/${number}/${size}${word}`, size);
  send(request, number, size);
  const said = await text(response);
  return said === 'right' ? '' : said;
}

async function get(client, path) {
  const { request, response } = client.begin('GET', path);
  if (client instanceof One) request.end();
  return text(response);
}

// The first thing that is wrong with any of these.
async function all(transfers) {
  const ends = await Promise.all(transfers.map((each) => each.catch((error) => String(error))));
  return ends.find((end) => end) ?? '';
}

const many = (count, begin) => all([...Array(count)].map(begin));

// One transfer whose receiver does not read, beside `atOnce` others that end before it goes on.
async function slowDownload(client, to, size) {
  let go;
  const held = new Promise((resolve) => { go = resolve; });
  const slow = download(client, to, size, held);
  const others = await many(atOnce, () => download(client, to, size));
  go();
  return others || slow;
}

async function slowUpload(client, to, size) {
  const number = last + 1;
  const slow = upload(client, to, size, '/held');
  const others = await many(atOnce, () => upload(client, to, size));
  await get(client, `/h1/${number}/release`);
  return others || slow;
}

async function limited(run) {
  let timer;
  const late = new Promise((resolve) => { timer = setTimeout(() => resolve('it does not end'), LIMIT_MS); });
  const end = await Promise.race([run().catch((error) => String(error.stack)), late]);
  clearTimeout(timer);
  return end;
}

function* casesOf(to, size) {
  yield ['download', (client) => many(atOnce, () => download(client, to, size))];
  yield ['upload', (client) => many(atOnce, () => upload(client, to, size))];
  yield ['both at once', (client) => all([many(Math.ceil(atOnce / 2), () => download(client, to, size)),
    many(Math.ceil(atOnce / 2), () => upload(client, to, size))])];
  const less = Math.min(size, standing);
  yield ['a download that stands still, beside others', (client) => slowDownload(client, to, less)];
  yield ['an upload that stands still, beside others', (client) => slowUpload(client, to, less)];
}

async function main() {
  let failed = false;
  const run = async (name, client, begin) => {
    const began = Date.now();
    const wrong = await limited(() => begin(client));
    failed ||= Boolean(wrong);
    console.log(`${wrong ? '!! ' : ''}${name}: ${wrong || 'right'} (${((Date.now() - began) / 1e3).toFixed(1)} s)`);
    client.close();
  };
  for (const [from, Client] of [['h1', One], ['h2', Two]]) {
    for (const to of ['h1', 'h2']) {
      for (const [name, begin] of casesOf(to, bytes)) await run(`${from}-${to}: ${name}`, new Client(), begin);
    }
    const narrow = (client) => many(5, () => upload(client, 'narrow', narrowBytes));
    await run(`${from}-h2: the server's streams begin with a window of one byte`, new Client(), narrow);
  }
  for (const to of ['h1', 'h2']) {
    const narrow = (client) => many(5, () => download(client, to, narrowBytes));
    await run(`h2-${to}: the client's streams begin with a window of one byte`, new Two({ initialWindowSize: 1 }), narrow);
  }
  process.exit(failed ? 1 : 0);
}

main();
