// What the JavaScript clients share: options, profiles, one line per check, and the checks themselves. What differs
// between the two SDKs is behind the peer that `run` gets.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { argv, env, exit } from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';

/** Loads a package of .tools/npm. */
export const load = createRequire(new URL('../../.tools/npm/package.json', import.meta.url));

export const ROOT = 'file:///test/root';
export const SAMPLED = 'sampled words';
export const CAPABILITIES = { sampling: {}, elicitation: {}, roots: { listChanged: true } };

const CHECK_MS = 60_000;
const ALL_MS = 600_000;
const NOTICE_MS = 5_000;
const PARALLEL_CALLS = 10;
const INVALID_PARAMS = -32602;
const LEGACY_NOT_FOUND = -32002;

const PROFILES = JSON.parse(readFileSync(new URL('profiles.json', import.meta.url), 'utf8'));

/** The server does not offer what a check needs. */
class Skip extends Error {}

function expect(condition, otherwise) {
  if (!condition) throw new Error(otherwise);
}

function expectIn(expected, text) {
  expect(text.includes(expected), `expected ${JSON.stringify(expected)} in ${JSON.stringify(text.slice(0, 200))}`);
}

function readSettings(client, eras) {
  const { values, positionals } = parseArgs({
    args: argv.slice(2),
    allowPositionals: true,
    options: {
      server: { type: 'string', default: 'fixture' },
      era: { type: 'string', multiple: true },
      prefix: { type: 'string', default: '' },
      only: { type: 'string', multiple: true },
    },
  });
  const profile = PROFILES[values.server];
  if (positionals.length !== 1 || !profile) {
    console.error(`usage: ${client}.mjs URL [--server ${Object.keys(PROFILES).join('|')}] [--era ${eras.join('|')}]`);
    exit(2);
  }
  const wanted = values.era ?? eras.filter((era) => profile.eras.includes(era));
  const unknown = wanted.find((era) => !eras.includes(era));
  if (unknown) {
    console.error(`${client}.mjs: this client has no era ${unknown}`);
    exit(2);
  }
  const headers = env.MCP_TEST_TOKEN ? { Authorization: `Bearer ${env.MCP_TEST_TOKEN}` } : {};
  return { client, url: new URL(positionals[0]), profile, eras: wanted, prefix: values.prefix, only: values.only, headers };
}

/** What the user enters into a form: the answers of the profile to the fields that it has. */
export function answersTo(profile, schema) {
  const answers = { ...profile.elicitation?.answers, ...profile.rounds?.answers };
  const asked = Object.keys(schema?.properties ?? {});
  return Object.fromEntries(Object.entries(answers).filter(([key]) => asked.includes(key)));
}

/** The text of a tool result. */
export const textOf = (result) =>
  (result.content ?? []).filter((block) => block.type === 'text').map((block) => block.text).join('\n');

/** What the server said by itself. */
export class Heard {
  logs = [];
  methods = [];

  async until(method) {
    await waitFor(() => this.methods.includes(method), `no ${method} within ${NOTICE_MS} ms`);
    this.methods.length = 0;
  }
}

async function waitFor(condition, otherwise) {
  for (let waited = 0; !(await condition()); waited += 50) {
    expect(waited < NOTICE_MS, otherwise);
    await sleep(50);
  }
}

class Checks {
  constructor(settings, peer, era) {
    Object.assign(this, { settings, peer, era });
  }

  get modern() {
    return (this.peer.version ?? '') >= '2026-07-28';
  }

  /** A part of the profile, with the prefix on its names. */
  part(name) {
    const { profile, prefix } = this.settings;
    if (!profile[name]) throw new Skip(`the server offers no ${name}`);
    const part = { ...profile[name] };
    const era = this.modern ? 'modern' : 'legacy';
    if (part.eras && !part.eras.includes(era)) throw new Skip(`the server offers no ${name} in this era`);
    for (const key of ['tool', 'count', 'prompt', 'name']) if (part[key]) part[key] = prefix + part[key];
    return part;
  }

  /** Calls a tool that must not fail. */
  async say({ tool, arguments: args = {} }, options) {
    const result = await this.peer.call(tool, args, options);
    expect(!result.isError, `the tool failed: ${textOf(result)}`);
    return textOf(result);
  }

  async asking(name) {
    const part = this.part(name);
    expectIn(part.says, await this.say(part));
  }

  all() {
    const asking = ['elicitation', 'rounds', 'sampling', 'roots', 'headers'].map((name) => [name, () => this.asking(name)]);
    const names = ['version', 'tools_list', 'tools_call', 'parallel', 'tool_error', 'unknown_tool', 'progress', 'cancel'];
    const more = ['logging', 'resources', 'resource_missing', 'prompts', 'completion', 'tools_changed', 'resource_updated', 'ping', 'load'];
    const own = (name) => [name, () => this[name]()];
    return [...names.map(own), ...asking, ...more.map(own)];
  }

  async version() {
    const { version } = this.peer;
    if (this.era !== 'auto') expect(this.modern === (this.era === 'modern'), `negotiated ${version}`);
    return version;
  }

  async tools_list() {
    const names = await this.peer.tools();
    const { profile, prefix } = this.settings;
    const missing = profile.tools.map((name) => prefix + name).filter((name) => !names.includes(name));
    expect(missing.length === 0, `not listed: ${missing}`);
    return `${names.length} tools`;
  }

  async tools_call() {
    const part = this.part('text');
    expectIn(part.says, await this.say(part));
  }

  async parallel() {
    const { tool, argument, says } = this.part('parallel');
    const callers = Array.from({ length: PARALLEL_CALLS }, (_, index) => `caller-${index}`);
    const words = await Promise.all(callers.map((caller) => this.say({ tool, arguments: { [argument]: caller } })));
    callers.forEach((caller, index) => expectIn(says.replace('{}', caller), words[index]));
  }

  async tool_error() {
    const part = this.part('error');
    const result = await this.peer.call(part.tool, part.arguments);
    expect(result.isError, 'the result says that the tool did not fail');
  }

  // Servers on older SDKs say it in the result, the others with an error.
  async unknown_tool() {
    let result;
    try {
      result = await this.peer.call(`${this.settings.prefix}no_such_tool`, {});
    } catch (error) {
      return expect(error.code === INVALID_PARAMS, `code ${error.code}: ${error.message}`);
    }
    expect(result.isError, 'an unknown tool was called');
  }

  async progress() {
    const part = this.part('progress');
    const seen = [];
    await this.say(part, { onprogress: ({ progress }) => seen.push(progress) });
    expect(seen.length >= part.steps, `${seen.length} reports`);
    expect(seen.every((value, index) => index === 0 || value >= seen[index - 1]), `not increasing: ${seen}`);
  }

  async cancel() {
    const part = this.part('slow');
    const count = async () => (part.count ? Number(await this.say({ tool: part.count })) : undefined);
    const before = await count();
    const abort = new AbortController();
    const call = this.peer.call(part.tool, part.arguments, { signal: abort.signal });
    const ended = call.then(() => 'ended', () => 'aborted');
    await sleep(1000);
    abort.abort('enough');
    expect((await ended) === 'aborted', 'the call ended before it was cancelled');
    await this.tools_call();
    if (before === undefined) return 'the server cannot say whether it noticed';
    await waitFor(async () => (await count()) > before, 'the server went on computing');
  }

  async logging() {
    const part = this.part('logging');
    const { logs } = this.peer.heard;
    logs.length = 0;
    if (!this.modern) await this.peer.setLevel('debug');
    const meta = this.modern ? { 'io.modelcontextprotocol/logLevel': 'debug' } : undefined;
    await this.peer.call(part.tool, {}, {}, meta);
    await waitFor(() => logs.length >= part.messages, `fewer than ${part.messages} messages`);
    expect(logs.length === part.messages, `${logs.length} messages`);
  }

  async resources() {
    const [listed, templates] = await this.peer.resources();
    for (const name of ['resource', 'template']) {
      if (!this.settings.profile[name]) continue;
      const part = this.part(name);
      expectIn(part.says, await this.peer.read(part.uri));
    }
    return `${listed} resources, ${templates} templates`;
  }

  async resource_missing() {
    const part = this.part('missing');
    try {
      await this.peer.read(part.uri);
    } catch (error) {
      return expect([INVALID_PARAMS, LEGACY_NOT_FOUND].includes(error.code), `code ${error.code}: ${error.message}`);
    }
    throw new Error('a resource that does not exist was read');
  }

  async prompts() {
    const part = this.part('prompt');
    const names = await this.peer.prompts();
    expect(names.includes(part.name), `${part.name} is not listed`);
    expectIn(part.says, await this.peer.prompt(part.name, part.arguments));
    return `${names.length} prompts`;
  }

  async completion() {
    const part = this.part('completion');
    const values = await this.peer.complete(part.prompt, { name: part.argument, value: part.value });
    expect(JSON.stringify(values) === JSON.stringify(part.values), `completed to ${values}`);
  }

  async changed(filter, method, trigger, uri) {
    const stop = this.modern ? await this.peer.listen(filter) : uri ? await this.peer.subscribe(uri) : async () => {};
    await this.say(trigger);
    await this.peer.heard.until(method);
    await stop();
  }

  async tools_changed() {
    await this.changed({ toolsListChanged: true }, 'notifications/tools/list_changed', this.part('toolsChanged'));
  }

  async resource_updated() {
    const { uri, tool } = this.part('resourceUpdated');
    await this.changed({ resourceSubscriptions: [uri] }, 'notifications/resources/updated', { tool }, uri);
  }

  // Only for clients that can do it by themselves.
  async load() {
    const { tool, argument } = this.part('parallel');
    // The demo's route has the built-in limits, which are meant for people.
    const { requests } = { requests: 100, ...this.settings.profile.load };
    const { result } = await this.peer.load(tool, { [argument]: 'load' }, requests);
    expect(result.ok === result.requests, `${result.ok} of ${result.requests} calls: ${result.errorMessages}`);
    return `${result.requests} calls, ${result.concurrency} at once`;
  }

  async ping() {
    if (this.modern) throw new Skip('there is no ping in this revision');
    await this.peer.ping();
  }
}

async function within(milliseconds, work) {
  const timer = new AbortController();
  const late = sleep(milliseconds, undefined, { signal: timer.signal }).then(() => {
    throw new Error(`took longer than ${milliseconds / 1000} s`);
  });
  late.catch(() => {});
  try {
    return await Promise.race([work(), late]);
  } finally {
    timer.abort();
  }
}

/** Runs every era; `connect(settings, era)` resolves to a connected peer. */
export async function run(client, eras, connect) {
  const settings = readSettings(client, eras);
  let failed = 0;
  const line = (verdict, era, name, note) => {
    if (verdict === 'FAIL') failed += 1;
    const text = note ? `: ${String(note).replace(/\s+/g, ' ').slice(0, 400)}` : '';
    console.log(`${verdict} ${client} ${era} ${name}${text}`);
  };
  const attempt = async (era, name, work) => {
    try {
      line('PASS', era, name, await within(CHECK_MS, work));
    } catch (error) {
      if (env.MCP_TEST_TRACE) console.error(error);
      line(error instanceof Skip ? 'SKIP' : 'FAIL', era, name, error.message);
    }
  };
  setTimeout(() => {
    line('FAIL', 'all', 'deadline', `took longer than ${ALL_MS / 1000} s`);
    exit(1);
  }, ALL_MS).unref();

  for (const era of settings.eras) {
    let peer;
    try {
      peer = await within(CHECK_MS, () => connect(settings, era));
    } catch (error) {
      line('FAIL', era, 'connection', error.message);
      continue;
    }
    for (const [name, check] of new Checks(settings, peer, era).all()) {
      // A peer that cannot do everything lists what it can; `load` is for those only.
      if (!(peer.checks?.includes(name) ?? name !== 'load')) continue;
      if (!settings.only || settings.only.includes(name)) await attempt(era, name, check);
    }
    await within(CHECK_MS, () => peer.close()).catch((error) => line('FAIL', era, 'connection', error.message));
  }
  exit(failed ? 1 : 0);
}
