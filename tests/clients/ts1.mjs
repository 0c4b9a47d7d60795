// `@modelcontextprotocol/sdk` 1.x against an MCP endpoint; see README.md. It speaks the legacy era only.

import { CAPABILITIES, Heard, ROOT, SAMPLED, answersTo, load, run, textOf } from './common.mjs';

const { Client } = load('@modelcontextprotocol/sdk/client/index.js');
const { StreamableHTTPClientTransport } = load('@modelcontextprotocol/sdk/client/streamableHttp.js');
const types = load('@modelcontextprotocol/sdk/types.js');

class Peer {
  heard = new Heard();

  constructor(client, transport) {
    this.client = client;
    this.transport = transport;
    const onLog = ({ params }) => void this.heard.logs.push(params.data);
    client.setNotificationHandler(types.LoggingMessageNotificationSchema, onLog);
    for (const schema of [types.ToolListChangedNotificationSchema, types.ResourceUpdatedNotificationSchema]) {
      client.setNotificationHandler(schema, ({ method }) => void this.heard.methods.push(method));
    }
  }

  get version() {
    return this.transport.protocolVersion;
  }

  async tools() {
    return (await this.client.listTools()).tools.map(({ name }) => name);
  }

  call(name, args, options) {
    return this.client.callTool({ name, arguments: args }, undefined, options);
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

  async subscribe(uri) {
    await this.client.subscribeResource({ uri });
    return () => this.client.unsubscribeResource({ uri });
  }

  async close() {
    await this.transport.terminateSession();
    await this.client.close();
  }
}

await run('ts1', ['legacy'], async ({ url, headers, profile }) => {
  const client = new Client({ name: 'tollgate-ts1', version: '1.0.0' }, { capabilities: CAPABILITIES });
  client.setRequestHandler(types.ElicitRequestSchema, ({ params }) => ({
    action: 'accept',
    content: answersTo(profile, params.requestedSchema),
  }));
  client.setRequestHandler(types.CreateMessageRequestSchema, () => ({
    role: 'assistant',
    content: { type: 'text', text: SAMPLED },
    model: 'test',
    stopReason: 'endTurn',
  }));
  client.setRequestHandler(types.ListRootsRequestSchema, () => ({ roots: [{ uri: ROOT, name: 'root' }] }));
  const transport = new StreamableHTTPClientTransport(url, { requestInit: { headers } });
  const peer = new Peer(client, transport);
  await client.connect(transport);
  return peer;
});
