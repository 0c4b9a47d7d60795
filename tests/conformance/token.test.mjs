// "$(tests/tools/node.sh)" --test 'tests/conformance/*.test.mjs'    (after tests/tools/install.sh conformance)

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createServer } from 'node:http';
import { dirname, join, resolve } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const HERE = dirname(fileURLToPath(import.meta.url));
const PACKAGES = resolve(HERE, '../../.tools/npm');
const TOKEN = 'secret-of-the-test';

// One request through every sender of the suite, and two that authenticate themselves.
const CLIENT = `
const http = require('node:http');
const { request } = require('undici');
const viaHttp = (port, path, headers) => new Promise((done, broken) => {
  const options = { hostname: '127.0.0.1', port, path, method: 'POST', headers };
  http.request(options, (response) => response.resume().on('end', done)).on('error', broken).end('{}');
});
(async () => {
  for (const port of process.argv.slice(1)) {
    const base = 'http://127.0.0.1:' + port;
    const own = { authorization: 'Bearer own' };
    await fetch(base + '/fetch', { method: 'POST', body: '{}' });
    await fetch(base + '/fetch-own', { method: 'POST', body: '{}', headers: own });
    await request(base + '/undici', { method: 'POST', body: '{}', headers: { Host: 'forged.example' } });
    await viaHttp(port, '/http', { Host: 'forged.example' });
    await viaHttp(port, '/http-own', own);
  }
})();`;

const seen = { ours: {}, other: {} };
const servers = [];

async function listen(record) {
  const server = createServer((request, response) => {
    record[request.url] = request.headers.authorization;
    response.end('{}');
  });
  servers.push(server);
  await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
  return server.address().port;
}

before(async () => {
  const ours = await listen(seen.ours);
  const other = await listen(seen.other);
  const variables = { ...process.env, MCP_TEST_ORIGIN: `http://127.0.0.1:${ours}`, MCP_TEST_TOKEN: TOKEN };
  const args = ['--require', join(HERE, 'token.cjs'), '-e', CLIENT, String(ours), String(other)];
  await promisify(execFile)(process.execPath, args, { cwd: PACKAGES, env: variables, timeout: 20_000 });
});

after(() => servers.forEach((server) => server.close()));

test('every sender carries the token to the origin', () => {
  for (const path of ['/fetch', '/undici', '/http']) assert.equal(seen.ours[path], `Bearer ${TOKEN}`, path);
});

test('a request that authenticates itself is left alone', () => {
  for (const path of ['/fetch-own', '/http-own']) assert.equal(seen.ours[path], 'Bearer own', path);
});

test('no other origin sees the token', () => {
  const others = ['/fetch', '/undici', '/http'].map((path) => seen.other[path]);
  assert.deepEqual(others, [undefined, undefined, undefined]);
});
