// `@modelcontextprotocol/client` 2.x against an MCP endpoint; see README.md.

import { CAPABILITIES, Heard, ROOT, SAMPLED, answersTo, load, run, textOf } from './common.mjs';

const { Client, StreamableHTTPClientTransport } = load('@modelcontextprotocol/client');

const MODES = { legacy: 'legacy', modern: { pin: '2026-07-28' }, auto: 'auto' };

class Peer {
  heard = new Heard();

  constructor(client) {
    this.client = client;
    client.setNotificationHandler('notifications/message', ({ params }) => void this.heard.logs.push(params.data));
    for (const method of ['notifications/tools/list_changed', 'notifications/resources/updated']) {
      client.setNotificationHandler(method, () => void this.heard.methods.push(method));
    }
  }

  get version() {
    return this.client.getNegotiatedProtocolVersion();
  }

  async tools() {
    return (await this.client.listTools()).tools.map(({ name }) => name);
  }

  call(name, args, options, meta) {
    return this.client.callTool({ name, arguments: args, ...(meta && { _meta: meta }) }, options);
  }

  async resources() {
    const { resources } = await this.client.listResources();
    const { resourceTemplates } = await this.client.listResourceTemplates();
    return [resources.length, resourceTemplates.length];
  }

  async read(uri) {
    return (await this.client.readResource({ uri })).contents[0].text;
  }

  async prompts() {
    return (await this.client.listPrompts()).prompts.map(({ name }) => name);
  }

  async prompt(name, args) {
    return textOf({ content: [(await this.client.getPrompt({ name, arguments: args })).messages[0].content] });
  }

  async complete(prompt, argument) {
    return (await this.client.complete({ ref: { type: 'ref/prompt', name: prompt }, argument })).completion.values;
  }

  setLevel(level) {
    return this.client.setLoggingLevel(level);
  }

  ping() {
    return this.client.ping();
  }

  async listen(filter) {
    const subscription = await this.client.listen(filter);
    return () => subscription.close();
  }

  async subscribe(uri) {
    await this.client.subscribeResource({ uri });
    return () => this.client.unsubscribeResource({ uri });
  }

  close() {
    return this.client.close();
  }
}

await run('ts2', Object.keys(MODES), async ({ url, headers, profile }, era) => {
  const client = new Client(
    { name: 'tollgate-ts2', version: '1.0.0' },
    { capabilities: CAPABILITIES, versionNegotiation: { mode: MODES[era] } },
  );
  client.setRequestHandler('elicitation/create', ({ params }) => ({
    action: 'accept',
    content: answersTo(profile, params.requestedSchema),
  }));
  client.setRequestHandler('sampling/createMessage', () => ({
    role: 'assistant',
    content: { type: 'text', text: SAMPLED },
    model: 'test',
    stopReason: 'endTurn',
  }));
  client.setRequestHandler('roots/list', () => ({ roots: [{ uri: ROOT, name: 'root' }] }));
  const peer = new Peer(client);
  await client.connect(new StreamableHTTPClientTransport(url, { requestInit: { headers } }));
  return peer;
});
