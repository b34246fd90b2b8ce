// OpenAI's client for Node against a running server: streams, the background, an abort, a tool call, JSON
// by a schema.
//
// usage, in a folder with the package `openai`:
//   node --input-type=module - URL < openai_node.mjs

import assert from "node:assert/strict";
import OpenAI from "openai";

const url = process.argv[2];
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const model = "fireside";
const messages = [{ role: "user", content: "Tell me a story about a fox and a lantern." }];
const weather = {
  type: "object",
  properties: { city: { type: "string", enum: ["Oslo", "Rome"] } },
  required: ["city"],
  additionalProperties: false,
};

async function cancelled(id) {
  for (;;) {
    const answer = await fetch(`${url}/v1/usage/${id}`);
    if (answer.ok) return (await answer.json()).finish_reason === "cancelled";
  }
}

async function streams() {
  const asked = { model, messages, temperature: 0, max_tokens: 20 };
  const whole = await client.chat.completions.create(asked);
  let text = "";
  let usage;
  const stream = await client.chat.completions.create({
    ...asked,
    stream: true,
    stream_options: { include_usage: true },
  });
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(usage.completion_tokens, 20);
}

async function responds() {
  const asked = { model, input: "Who are you?", temperature: 0 };
  const whole = await client.responses.create(asked);
  const stream = client.responses.stream(asked);
  let text = "";
  for await (const event of stream) {
    if (event.type === "response.output_text.delta") text += event.delta;
  }
  assert.equal(text, whole.output_text);
  assert.equal((await stream.finalResponse()).status, "completed");
  const next = await client.responses.create({ ...asked, previous_response_id: whole.id });
  assert.equal(next.previous_response_id, whole.id);
}

async function eventsOf(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}

async function respondsInTheBackground() {
  const asked = { model, input: "Who are you?", temperature: 0, max_output_tokens: 20, background: true };
  let polled = await client.responses.create(asked);
  assert(["queued", "in_progress"].includes(polled.status));
  while (["queued", "in_progress"].includes(polled.status)) {
    polled = await client.responses.retrieve(polled.id);
  }
  const stream = await client.responses.create({ ...asked, stream: true });
  const begun = [];
  for await (const event of stream) {
    begun.push(event);
    if (event.type === "response.output_text.delta") break; // which closes the connection
  }
  const { id } = begun[0].response;
  const whole = await eventsOf(await client.responses.retrieve(id, { stream: true }));
  const after = begun.at(-1).sequence_number;
  const options = { stream: true, starting_after: after };
  const rest = await eventsOf(await client.responses.retrieve(id, options));
  assert.deepEqual([...begun, ...rest], whole);
  const padded = await eventsOf(
    await client.responses.retrieve(id, { ...options, include_obfuscation: true }),
  );
  assert(padded.some((event) => event.obfuscation));
  assert.equal(padded.length, rest.length);
  const last = whole.at(-1).response;
  assert.equal(last.status, polled.status);
  assert.equal(last.output[0].content[0].text, polled.output_text);
}

async function cancelsInTheBackground() {
  const asked = { model, input: "Tell me a story.", max_output_tokens: 900, background: true };
  const { id } = await client.responses.create(asked);
  assert.equal((await client.responses.cancel(id)).status, "cancelled");
  assert.equal((await client.responses.retrieve(id)).status, "cancelled");
  assert(await cancelled(id));
  const { data } = await client.responses.inputItems.list(id);
  assert.equal(data[0].content[0].text, "Tell me a story.");
}

async function aborts() {
  const asked = { model, messages, max_tokens: 900, stream: true, ignore_eos: true };
  const stream = await client.chat.completions.create(asked);
  for await (const chunk of stream) {
    if (!chunk.choices[0].delta.content) continue;
    stream.controller.abort();
    assert(await cancelled(chunk.id));
  }
}

async function calls() {
  const tools = [
    { type: "function", function: { name: "weather", parameters: weather, strict: true } },
  ];
  const asked = { model, messages, tools, tool_choice: "required", parallel_tool_calls: false };
  const stream = client.chat.completions.stream(asked);
  const final = await stream.finalChatCompletion();
  const [call] = final.choices[0].message.tool_calls;
  assert.equal(final.choices[0].finish_reason, "tool_calls");
  assert.equal(call.function.name, "weather");
  assert(weather.properties.city.enum.includes(JSON.parse(call.function.arguments).city));
}

async function keepsToASchema() {
  const json_schema = { name: "weather", strict: true, schema: weather };
  const response_format = { type: "json_schema", json_schema };
  const asked = { model, messages, response_format, max_tokens: 60 };
  const answer = await client.chat.completions.parse(asked);
  assert(weather.properties.city.enum.includes(answer.choices[0].message.parsed.city));
}

async function embeds() {
  const answer = await client.embeddings.create({ model, input: ["a fox", "a lantern"] });
  assert.equal(answer.data.length, 2);
  assert(Math.abs(Math.hypot(...answer.data[0].embedding) - 1) < 1e-5);
}

const steps = [
  ...[streams, responds, respondsInTheBackground, cancelsInTheBackground],
  ...[aborts, calls, keepsToASchema, embeds],
];
for (const step of steps) {
  await step();
  console.log(`openai for Node: ${step.name}`);
}
