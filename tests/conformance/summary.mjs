// Turns the result folder of a conformance run into one comparable line per check:
//
//     scenario <TAB> check id <TAB> status <TAB> how often
//
// Informational checks are left out: they carry timings and headers, and come and go between equal runs.
//
//     node summary.mjs RESULTS > summary.tsv

import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { argv, exit } from 'node:process';
import { pathToFileURL } from 'node:url';

const RESULT_FOLDER = /^(?:server-)?(?<scenario>.+)-\d{4}-\d{2}-\d{2}T[\d-]+Z$/;

/** The scenario a result folder belongs to: its name without the prefix of the command and the time of the run. */
export function scenarioOf(folder) {
  return RESULT_FOLDER.exec(folder)?.groups.scenario ?? folder;
}

/** The sorted lines of a run, without a final newline each. */
export function summarise(results) {
  const counts = new Map();
  for (const entry of readdirSync(results, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || entry.name !== 'checks.json') continue;
    const file = join(entry.parentPath, entry.name);
    // `server-stateless` is a scenario whose own name starts like the prefix; its folder is `server-server-stateless-…`.
    const scenario = scenarioOf(dirname(file).split('/').at(-1));
    for (const check of JSON.parse(readFileSync(file, 'utf8'))) {
      if (check.status === 'INFO') continue;
      const key = `${scenario}\t${check.id}\t${check.status}`;
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
  }
  return [...counts].map(([key, count]) => `${key}\t${count}`).sort();
}

/** How many checks of each status the lines hold. */
export function tally(lines) {
  const totals = { SUCCESS: 0, FAILURE: 0, WARNING: 0, SKIPPED: 0 };
  for (const line of lines) {
    const [, , status, count] = line.split('\t');
    totals[status] = (totals[status] ?? 0) + Number(count);
  }
  return totals;
}

/** Lines that only one of the two runs has, each with `-` (expected) or `+` (found) in front. */
export function difference(expected, found) {
  const [before, after] = [new Set(expected), new Set(found)];
  return [
    ...expected.filter((line) => !after.has(line)).map((line) => `- ${line}`),
    ...found.filter((line) => !before.has(line)).map((line) => `+ ${line}`),
  ];
}

if (import.meta.url === pathToFileURL(argv[1]).href) {
  if (argv.length !== 3) {
    console.error('usage: node summary.mjs RESULTS');
    exit(2);
  }
  for (const line of summarise(argv[2])) console.log(line);
}
