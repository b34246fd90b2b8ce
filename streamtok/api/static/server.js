// What the page asks the server for, beside answers.

import { $, PREFIX } from "./dom.js";
import { ServerRecord } from "./recording.js";

/** Returns the header that says who asks, where the server has keys. */
export const identity = () => ($("key").value ? { authorization: `Bearer ${$("key").value}` } : {});

/** Sends a request to this server. */
export const send = (path, options = {}) => fetch(`${PREFIX}${path}`, {
  ...options, headers: { ...options.headers, ...identity() },
});

const post = (path, body) => send(path, {
  method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
});

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** What is known of the server: without it, the page is as good but for what needs it. */
export const known = { model: undefined, context: null, defaults: {}, faults: false, end: null };

export async function askServer() {
  const response = await send("/props");
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
    response = await send(`/v1/usage/${id}`);
  }
  return response;
}

/** Asks what left the server over each connection of an answer, where that is still kept. */
export async function askTraces({ connections, events }) {
  for (const connection of connections) {
    if (connection.server || connection.status === 401) continue;
    const response = await send(`/v1/traces/${connection.headers["x-request-id"]}`);
    if (!response.ok) continue;
    const lines = (await response.text()).trim().split("\n").map((line) => JSON.parse(line));
    const own = events.filter((event) => event.connection === connection);
    connection.server = new ServerRecord(lines, connection, own);
  }
}
