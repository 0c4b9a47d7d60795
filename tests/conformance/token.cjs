// Preload (`node --require token.cjs`): adds a bearer token to every request that goes to one origin.
//
// The conformance suite cannot authenticate. It sends through the global `fetch` and undici's `request`, which announce
// each request on a diagnostics channel before its headers leave, and through `node:http`, which is wrapped. A request
// that already carries `Authorization` is left alone, and no other origin sees the token.
//
//     MCP_TEST_ORIGIN   scheme, host and port, e.g. http://127.0.0.1:8080
//     MCP_TEST_TOKEN    the token, without "Bearer "
'use strict';

const { subscribe } = require('node:diagnostics_channel');
const { syncBuiltinESMExports } = require('node:module');

const { MCP_TEST_ORIGIN, MCP_TEST_TOKEN } = process.env;
if (!MCP_TEST_ORIGIN || !MCP_TEST_TOKEN) {
  throw new Error('token.cjs needs MCP_TEST_ORIGIN and MCP_TEST_TOKEN');
}
const origin = new URL(MCP_TEST_ORIGIN).origin;
const authorization = `Bearer ${MCP_TEST_TOKEN}`;

function sameOrigin(candidate) {
  try {
    return new URL(candidate).origin === origin;
  } catch {
    return false;
  }
}

// undici keeps headers as a flat list of names and values, in older versions as text.
function carriesAuthorization(headers) {
  const names = Array.isArray(headers)
    ? headers.filter((_, index) => index % 2 === 0)
    : String(headers ?? '').split('\r\n').map((line) => line.split(':', 1)[0]);
  return names.some((name) => String(name).toLowerCase() === 'authorization');
}

subscribe('undici:request:create', ({ request }) => {
  if (sameOrigin(request.origin) && !carriesAuthorization(request.headers)) {
    request.addHeader('authorization', authorization);
  }
});

// Where `http.request(url[, options][, callback])` or `http.request(options[, callback])` connects to. The Host header
// says nothing about that: a test may forge it.
function destination(scheme, [first, second]) {
  const url = typeof first === 'string' ? new URL(first) : first instanceof URL ? first : {};
  const options = url === first || typeof first === 'string' ? second : first;
  const own = options !== null && typeof options === 'object' ? options : {};
  const host = own.hostname ?? own.host ?? (url.hostname || 'localhost');
  const port = own.port ?? url.port ?? '';
  return `${scheme}//${host}${port === '' ? '' : `:${port}`}`;
}

for (const [scheme, module] of [['http:', require('node:http')], ['https:', require('node:https')]]) {
  const { request: send } = module;
  module.request = function requestWithToken(...args) {
    const request = send.apply(this, args);
    if (sameOrigin(destination(scheme, args)) && !request.headersSent && !request.hasHeader('authorization')) {
      request.setHeader('authorization', authorization);
    }
    return request;
  };
  // The original `get` would go around the wrapper.
  module.get = function getWithToken(...args) {
    const request = module.request(...args);
    request.end();
    return request;
  };
}
syncBuiltinESMExports();
