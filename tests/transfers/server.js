// The server of transfers: server.js HTTP1_PORT HTTP2_PORT ONE_BYTE_PORT
// GET /X/N/SIZE sends content; PUT /X/N/SIZE checks it. PUT /X/N/SIZE/held reads nothing before a GET
// of /X/N/release. The streams of the third port begin with a window of one byte.
'use strict';
const http = require('http');
const http2 = require('http2');
const { send, Check } = require('./content.js');

const held = new Map();

async function answer(request, response) {
  const [, , number, size, word] = request.url.split('/');
  if (size === 'release') {
    held.get(number)?.();
    return response.end('released');
  }
  if (request.method === 'GET') {
    response.setHeader('content-type', 'application/octet-stream');
    response.setHeader('content-length', size);
    return send(response, Number(number), Number(size));
  }
  if (word === 'held') await new Promise((go) => { held.set(number, go); });
  const check = new Check(Number(number));
  request.on('data', (chunk) => check.take(chunk));
  request.on('end', () => response.end(check.verdict(Number(size)) || 'right'));
  return request.on('error', () => {});
}

const [one, two, narrow] = process.argv.slice(2).map(Number);
const first = http.createServer({ requestTimeout: 0, keepAliveTimeout: 0 }, answer);
first.listen(one, '127.0.0.1');
http2.createServer({}, answer).listen(two, '127.0.0.1');
http2.createServer({ settings: { initialWindowSize: 1 } }, answer).listen(narrow, '127.0.0.1');
