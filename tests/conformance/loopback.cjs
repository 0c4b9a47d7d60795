// Preload (`node --require loopback.cjs`): every TCP server listens on 127.0.0.1 only.
//
// Some of the peers we test with listen on all interfaces and cannot be told otherwise.
'use strict';

const { Server } = require('node:net');

const LOOPBACK = '127.0.0.1';
const ANY = new Set([undefined, null, '', '0.0.0.0', '::']);
const listen = Server.prototype.listen;

const isPort = (value) => typeof value === 'number' || (typeof value === 'string' && /^\d+$/.test(value));

Server.prototype.listen = function listenOnLoopback(first, ...rest) {
  if (isPort(first)) {
    // listen(port[, host][, backlog][, callback])
    const host = typeof rest[0] === 'string' || rest[0] == null ? rest.shift() : undefined;
    return listen.call(this, first, ANY.has(host) ? LOOPBACK : host, ...rest);
  }
  if (first !== null && typeof first === 'object' && isPort(first.port)) {
    const host = ANY.has(first.host) ? LOOPBACK : first.host;
    return listen.call(this, { ...first, host }, ...rest);
  }
  return listen.call(this, first, ...rest);
};
