// Writes files with content for nginx, which sends the downloads over HTTP/2: files.js DIRECTORY SIZE...
// Node.js is no server for these: it sometimes resets a stream with NO_ERROR in place of its end.
'use strict';
const fs = require('fs');
const path = require('path');
const { FILES, pieces } = require('./content.js');

const [directory, ...sizes] = process.argv.slice(2);
for (let number = 0; number < FILES; number += 1) {
  const folder = path.join(directory, 'h2', String(number));
  fs.mkdirSync(folder, { recursive: true });
  for (const size of sizes) {
    const file = fs.openSync(path.join(folder, size), 'w');
    for (const piece of pieces(number, Number(size))) fs.writeSync(file, piece);
    fs.closeSync(file);
  }
}
