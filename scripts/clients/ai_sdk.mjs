// The AI SDK, with its OpenAI-compatible provider: streams, an abort, a tool call, JSON by a schema.
//
// usage, in a folder with the packages `ai`, `@ai-sdk/openai-compatible` and `zod`:
//   node --input-type=module - URL < ai_sdk.mjs

import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateObject, generateText, streamText, tool } from "ai";
import { z } from "zod";

const url = process.argv[2];
const provider = createOpenAICompatible({
  name: "streamtok",
  baseURL: `${url}/v1`,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const model = provider("fireside");
const prompt = "Tell me a story about a fox and a lantern.";
const schema = z.object({ city: z.enum(["Oslo", "Rome"]) });
const common = { model, prompt, maxRetries: 0 };

async function cancelled(id) {
  for (;;) {
    const answer = await fetch(`${url}/v1/usage/${id}`);
    if (answer.ok) return (await answer.json()).finish_reason === "cancelled";
  }
}

async function streams() {
  const asked = { ...common, temperature: 0, maxOutputTokens: 20 };
  const whole = await generateText(asked);
  const streamed = streamText(asked);
  let text = "";
  for await (const part of streamed.textStream) text += part;
  assert.equal(text, whole.text);
  assert.equal((await streamed.usage).outputTokens, 20);
  assert.equal(await streamed.finishReason, "length");
}

async function aborts() {
  const leaving = new AbortController();
  let id;
  const streamed = streamText({
    ...common,
    maxOutputTokens: 900,
    abortSignal: leaving.signal,
    includeRawChunks: true,
  });
  for await (const part of streamed.fullStream) {
    if (part.type === "raw") id = part.rawValue.id ?? id;
    if (part.type === "text-delta") leaving.abort();
  }
  assert(await cancelled(id));
}

async function calls() {
  const weather = tool({ description: "The weather", inputSchema: schema });
  const streamed = streamText({
    ...common,
    tools: { weather },
    toolChoice: "required",
    providerOptions: { streamtok: { parallel_tool_calls: false } },
  });
  const [call] = await streamed.toolCalls;
  assert.equal(call.toolName, "weather");
  schema.parse(call.input);
  assert.equal(await streamed.finishReason, "tool-calls");
}

async function keepsToASchema() {
  const { object } = await generateObject({ ...common, schema, maxOutputTokens: 60 });
  schema.parse(object);
}

async function embeds() {
  const space = provider.textEmbeddingModel("fireside");
  const { embeddings } = await embedMany({ model: space, values: ["a fox", "a lantern"] });
  assert.equal(embeddings.length, 2);
}

for (const step of [streams, aborts, calls, keepsToASchema, embeds]) {
  await step();
  console.log(`AI SDK: ${step.name}`);
}
