// The messages and options that client and server share. NODE_PATH has the packages.
'use strict';
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');
const path = require('path');

const file = path.join(__dirname, '..', 'probe.proto');
const options = { keepCase: true, longs: Number, enums: String, defaults: true };
const Probe = grpc.loadPackageDefinition(loader.loadSync(file, options)).ringway.probe.Probe;
const LARGEST = 8 << 20;
const SIZES = { 'grpc.max_receive_message_length': LARGEST, 'grpc.max_send_message_length': LARGEST };
const PATIENCE_MS = 20000;
const DETAILS = 'not today, \u2603 100%';
const WHY = Buffer.from([0x00, 0xff]);

module.exports = { grpc, Probe, SIZES, PATIENCE_MS, DETAILS, WHY };
