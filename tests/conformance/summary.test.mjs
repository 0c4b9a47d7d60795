import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { difference, scenarioOf, summarise, tally } from './summary.mjs';

test('a scenario keeps its own prefix and loses that of the command', () => {
  assert.equal(scenarioOf('server-ping-2026-01-02T03-04-05-678Z'), 'ping');
  assert.equal(scenarioOf('server-server-stateless-2026-01-02T03-04-05-678Z'), 'server-stateless');
});

test('checks are counted by scenario, id and status, without the informational ones', () => {
  const results = mkdtempSync(join(tmpdir(), 'summary-'));
  try {
    const folder = join(results, 'server-ping-2026-01-02T03-04-05-678Z');
    mkdirSync(folder);
    const checks = ['SUCCESS', 'SUCCESS', 'INFO', 'FAILURE'].map((status) => ({ id: 'pong', status }));
    writeFileSync(join(folder, 'checks.json'), JSON.stringify(checks));
    const lines = summarise(results);
    assert.deepEqual(lines, ['ping\tpong\tFAILURE\t1', 'ping\tpong\tSUCCESS\t2']);
    assert.deepEqual(tally(lines), { SUCCESS: 2, FAILURE: 1, WARNING: 0, SKIPPED: 0 });
  } finally {
    rmSync(results, { recursive: true });
  }
});

test('a check that no longer runs is a difference', () => {
  assert.deepEqual(difference(['a', 'b'], ['b', 'c']), ['- a', '+ c']);
});
