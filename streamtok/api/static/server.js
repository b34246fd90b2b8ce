// What the page asks the server for, beside answers.

import { $, PREFIX } from "./dom.js";
import { ServerRecord } from "./recording.js";

/** Returns the header that says who asks, where the server has keys. */
export const identity = () => ($("key").value ? { authorization: `Bearer ${$("key").value}` } : {});

const get = (path) => fetch(`${PREFIX}${path}`, { headers: identity() });

const post = (path, body) => fetch(`${PREFIX}${path}`, {
  method: "POST",
  headers: { "content-type": "application/json", ...identity() },
  body: JSON.stringify(body),
});

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** What is known of the server: without it, the page is as good but for what needs it. */
export const known = { model: undefined, context: null, defaults: {}, faults: false, end: null };

export async function askServer() {
  const response = await get("/props");
  if (!response.ok) return false;
  const props = await response.json();
  const { n_ctx: context, params } = props.default_generation_settings;
  Object.assign(known, {
    model: props.model_alias, context, defaults: params, faults: props.faults, end: props.eos_token,
  });
  return true;
}

/** Returns how many tokens the model reads of messages; null where the server does not tell. */
export async function countTokens(messages) {
  const rendered = await post("/apply-template", { messages });
  if (!rendered.ok) return null;
  const content = (await rendered.json()).prompt;
  const counted = await post("/tokenize", { content });
  return counted.ok ? (await counted.json()).tokens.length : null;
}

/** Asks what the ledger says, as soon as it does: when a client leaves, that takes a while. */
export async function askUsage(id) {
  let response;
  for (let tries = 0; tries < 10 && !response?.ok; tries += 1) {
    if (tries) await sleep(200);
    response = await get(`/v1/usage/${id}`);
  }
  return response;
}

/** Asks what left the server so far; null where no trace of the request is kept. */
export async function askTrace(recording) {
  const response = await get(`/v1/traces/${recording.requestId}`);
  if (!response.ok) return null;
  const lines = (await response.text()).trim().split("\n").map((line) => JSON.parse(line));
  return new ServerRecord(lines, recording);
}
