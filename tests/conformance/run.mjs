// Runs the official conformance suite against one MCP endpoint and compares the outcome check by check.
//
//     run.sh --url http://127.0.0.1:9001/mcp
//     run.sh --url … --compare other-run/ --out this-run/
//     MCP_TEST_TOKEN=… run.sh --url … --preload tests/conformance/token.cjs
//
// For each revision it writes `<out>/<revision>.tsv` (see summary.mjs) and compares it with `<compare>/<revision>.tsv`.
// The exit code of the suite alone proves little for a proxy: it does not count extensions, and checks that no longer
// run are not failures. So the exit code here is 0 only if every line is equal.

import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { argv, env, execPath, exit } from 'node:process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { difference, summarise, tally } from './summary.mjs';

const HERE = dirname(fileURLToPath(import.meta.url));
const SUITE = resolve(HERE, '../../.tools/npm/node_modules/@modelcontextprotocol/conformance/dist/index.js');
const REVISIONS = ['2025-11-25', '2026-07-28'];
const USAGE = `usage: run.sh --url URL [options]
  --url URL           the MCP endpoint, on loopback
  --revision DATE     ${REVISIONS.join(' or ')}; may be given twice; both if left out
  --compare DIR       folder with <revision>.tsv to compare with (${join('tests', 'conformance', 'baseline')})
  --no-compare        only report
  --out DIR           where to write <revision>.tsv; nowhere if left out
  --keep DIR          keep the suite's own result files in this folder
  --preload FILE      load FILE into the suite's process first (token.cjs: needs MCP_TEST_TOKEN)
  --timeout SECONDS   longest time for one revision (300)`;

function fail(message) {
  console.error(`run.sh: ${message}`);
  exit(2);
}

function options() {
  try {
    const { values } = parseArgs({
      args: argv.slice(2),
      options: {
        url: { type: 'string' },
        revision: { type: 'string', multiple: true, default: REVISIONS },
        compare: { type: 'string', default: join(HERE, 'baseline') },
        'no-compare': { type: 'boolean', default: false },
        out: { type: 'string' },
        keep: { type: 'string' },
        preload: { type: 'string' },
        timeout: { type: 'string', default: '300' },
        help: { type: 'boolean', default: false },
      },
    });
    if (values.help) {
      console.log(USAGE);
      exit(0);
    }
    if (!values.url) fail(`--url is missing\n${USAGE}`);
    const unknown = values.revision.find((revision) => !REVISIONS.includes(revision));
    if (unknown) fail(`unknown revision ${unknown}`);
    if (!(Number(values.timeout) > 0)) fail('--timeout must be a number of seconds');
    return values;
  } catch (error) {
    return fail(`${error.message}\n${USAGE}`);
  }
}

/** Runs the suite for one revision; resolves to its exit code, or null if it took too long. */
function runSuite({ url, preload, timeout }, revision, results) {
  const variables = { ...env };
  if (preload) {
    variables.NODE_OPTIONS = [env.NODE_OPTIONS, '--require', JSON.stringify(resolve(preload))].filter(Boolean).join(' ');
    variables.MCP_TEST_ORIGIN ??= new URL(url).origin;
  }
  const suite = spawn(execPath, [SUITE, 'server', '--url', url, '--requirements', revision, '-o', results], {
    env: variables,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  const listen = (chunk) => {
    said = (said + chunk).slice(-20_000);
  };
  suite.stdout.on('data', listen);
  suite.stderr.on('data', listen);
  return new Promise((done, broken) => {
    const timer = setTimeout(() => suite.kill('SIGKILL'), Number(timeout) * 1000);
    suite.on('error', broken);
    suite.on('close', (code) => {
      clearTimeout(timer);
      done({ code, said });
    });
  });
}

function expectedLines(folder, revision) {
  const file = join(folder, `${revision}.tsv`);
  if (!existsSync(file)) fail(`there is no ${file} to compare with`);
  return readFileSync(file, 'utf8').split('\n').filter(Boolean);
}

async function checkRevision(settings, revision) {
  const expected = settings['no-compare'] ? null : expectedLines(settings.compare, revision);
  const results = settings.keep ? join(settings.keep, revision) : mkdtempSync(join(tmpdir(), 'conformance-'));
  if (settings.keep) {
    rmSync(results, { recursive: true, force: true });
    mkdirSync(results, { recursive: true });
  }
  const { code, said } = await runSuite(settings, revision, results);
  const lines = summarise(results);
  if (!settings.keep) rmSync(results, { recursive: true, force: true });
  if (settings.out) {
    mkdirSync(settings.out, { recursive: true });
    writeFileSync(join(settings.out, `${revision}.tsv`), lines.map((line) => `${line}\n`).join(''));
  }

  const { SUCCESS, FAILURE, WARNING, SKIPPED } = tally(lines);
  const verdict = code === null ? 'killed after its time' : `suite exit ${code}`;
  console.log(`${revision}: ${SUCCESS} passed, ${FAILURE} failed, ${WARNING} warnings, ${SKIPPED} skipped, ${verdict}`);
  if (lines.length === 0) {
    console.log(said.trim());
    return false;
  }
  if (!expected) return code === 0;
  const differing = difference(expected, lines);
  console.log(differing.length === 0 ? `${revision}: equal to the expected outcome` : differing.join('\n'));
  return differing.length === 0;
}

if (!existsSync(SUITE)) fail('the suite is not installed; run tests/tools/install.sh conformance');
const settings = options();
if (settings.preload && !existsSync(settings.preload)) fail(`there is no ${settings.preload}`);
let equal = true;
for (const revision of settings.revision) equal = (await checkRevision(settings, revision)) && equal;
exit(equal ? 0 : 1);
