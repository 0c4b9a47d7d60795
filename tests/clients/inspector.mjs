// The Inspector's command line against an MCP endpoint; see README.md. Every check is a process of its own, so this one
// also shows what many short connections do.

import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { env, execPath } from 'node:process';

import { run, textOf } from './common.mjs';

const resolve = createRequire(new URL('../../.tools/npm/package.json', import.meta.url)).resolve;
const PACKAGE = dirname(resolve('@modelcontextprotocol/inspector/package.json'));
const CLI = join(PACKAGE, 'clients/cli/build/index.js');
const CALL_MS = 45_000;
/** The exit code that says that a tool failed; the result is printed all the same. */
const TOOL_FAILED = 5;
const LOAD = ['--load', '--load-concurrency', '8', '--load-requests'];

class Peer {
  checks = ['tools_list', 'tools_call', 'tool_error', 'unknown_tool', 'resources', 'resource_missing', 'prompts', 'load'];

  constructor({ url, headers }, era) {
    // It keeps files in the home directory; these checks want none of them.
    this.home = mkdtempSync(join(tmpdir(), 'inspector-'));
    this.target = [url.href, '--transport', 'http', '--protocol-era', era, '--stored-auth-only'];
    for (const [name, value] of Object.entries(headers)) this.target.push('--header', `${name}: ${value}`);
  }

  send(method, ...options) {
    const args = [CLI, ...this.target, '--method', method, ...options, '--format', 'json', '-q'];
    const variables = { ...env, HOME: this.home };
    return new Promise((done, broken) => {
      execFile(execPath, args, { env: variables, timeout: CALL_MS, maxBuffer: 4 << 20 }, (error, stdout, stderr) => {
        if (error && !(error.code === TOOL_FAILED && stdout.trim())) {
          broken(new Error(stderr.trim() || error.message));
        } else {
          done(JSON.parse(stdout));
        }
      });
    });
  }

  async tools() {
    return (await this.send('tools/list')).result.tools.map(({ name }) => name);
  }

  async call(name, args) {
    const options = ['--tool-name', name];
    if (Object.keys(args).length > 0) options.push('--tool-args-json', JSON.stringify(args));
    try {
      return (await this.send('tools/call', ...options)).result;
    } catch (error) {
      // The tool is looked up in the list before it is called.
      if (error.message.includes('tool_not_found')) return { isError: true };
      throw error;
    }
  }

  async resources() {
    const { resources } = (await this.send('resources/list')).result;
    const { resourceTemplates } = (await this.send('resources/templates/list')).result;
    return [resources.length, resourceTemplates.length];
  }

  async read(uri) {
    try {
      return (await this.send('resources/read', '--uri', uri)).result.contents[0].text;
    } catch (error) {
      // The command prints no JSON-RPC codes.
      if (/not found|unknown resource/i.test(error.message)) error.code = -32602;
      throw error;
    }
  }

  async prompts() {
    return (await this.send('prompts/list')).result.prompts.map(({ name }) => name);
  }

  async prompt(name, args) {
    const pairs = Object.entries(args).map(([key, value]) => `${key}=${value}`);
    const { result } = await this.send('prompts/get', '--prompt-name', name, '--prompt-args', ...pairs);
    return textOf({ content: [result.messages[0].content] });
  }

  async load(name, args, requests) {
    return this.send('tools/call', '--tool-name', name, '--tool-args-json', JSON.stringify(args), ...LOAD, String(requests));
  }

  async close() {
    rmSync(this.home, { recursive: true, force: true });
  }
}

await run('inspector', ['legacy', 'modern', 'auto'], async (settings, era) => new Peer(settings, era));
