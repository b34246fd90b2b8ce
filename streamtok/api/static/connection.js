// How an answer gets here: over one connection, or over another one where that is lost.
//
// An answer as events is asked for with `X-Resumable: 1`: each event has an id, and a client that has
// lost the connection, to a network, a phone's sleep or a server's restart, gets the events after the
// last one it has from `GET /v1/streams/{id}`.

import { PREFIX } from "./dom.js";
import { send, sleep } from "./server.js";
import { makeHead, makeReturn } from "./wire.js";

export const URL_PATH = `${PREFIX}/v1/chat/completions`;
const AWAY_MS = 60_000;  // how long it is tried to come back
const WAITS_MS = [200, 500, 1000, 2000];  // between two tries; then the last one again

/** An error that the server told us, with a status or within a stream. */
export class ServerError extends Error {
  constructor({ message, code, type }, status) {
    super([status, code ?? type].filter(Boolean).join(" ") + `: ${message}`);
    Object.assign(this, { code, status });
  }
}

/**
 * Reads an answer to its end, and hands its events to `take`. One that has begun already, as before
 * the page was loaded again, goes on from its last event.
 */
export async function readAnswer(answer, take, signal) {
  const { recording } = answer;
  let response = recording.connections.length ? await comeBack(answer, signal) : await request(answer, signal);
  while (response) {
    try {
      await readBody(response, recording, take);
      return;
    } catch (error) {
      if (signal.aborted || !canComeBack(recording)) throw error;
      response = await comeBack(answer, signal);
    }
  }
}

export const canComeBack = ({ streamId, lastEventId, events }) =>
  streamId && lastEventId && events.at(-1)?.kind !== "done";

/** Sends the request; returns the answer once its head has come. */
async function request({ recording, wire, ...answer }, signal) {
  const { headers, accept } = answer;
  const response = await send("/v1/chat/completions", { method: "POST", headers, body: JSON.stringify(answer.body), signal });
  begin(recording, response, accept);
  wire.head.append(makeHead(recording.connections[0]));
  if (!response.ok) throw await readRefusal(response, answer.rows);
  return response;
}

function begin(recording, { status, statusText, headers }, accept) {
  recording.begin({ status, statusText, headers: Object.fromEntries(headers) }, accept);
}

async function readBody({ body }, recording, take) {
  const reader = body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      take(recording.take(value));
    }
  } finally {
    take(recording.finish());
  }
}

/** Asks for the rest of an answer until the server gives it; null where there is none. */
async function comeBack({ recording, rows, accept }, signal) {
  recording.lostMs = performance.now();
  const path = `/v1/streams/${recording.streamId}`;
  const headers = { accept, "last-event-id": recording.lastEventId, "x-trace": "1" };
  for (let tries = 0; performance.now() - recording.lostMs < AWAY_MS; tries += 1) {
    const response = await send(path, { headers, signal }).catch((error) => {
      if (signal.aborted) throw error;
      return null;  // nobody is there yet
    });
    if (response?.status === 204) return null;
    if (response?.ok) {
      begin(recording, response, accept);
      rows.append(makeReturn(recording.connections.at(-1),
        `GET ${PREFIX}${path}\nlast-event-id: ${recording.lastEventId}`));
      return response;
    }
    if (response && response.status !== 503) throw await readRefusal(response, rows);
    await Promise.race([sleep(WAITS_MS[tries] ?? WAITS_MS.at(-1)), isAwake()]);
  }
  throw new Error("the server did not come back");
}

/** Resolves when the network is back, or the page comes into sight again. */
const isAwake = () => new Promise((resolve) => {
  addEventListener("online", resolve, { once: true });
  document.addEventListener("visibilitychange", resolve, { once: true });
});

/** Returns the error in an answer that is not a stream, after showing its body. */
async function readRefusal(response, rows) {
  const text = await response.text();
  rows.append(Object.assign(document.createElement("pre"), { textContent: text }));
  const isJson = response.headers.get("content-type") === "application/json";
  return new ServerError(isJson ? JSON.parse(text).error : { message: text }, response.status);
}

/** Has the server stop: to go away does not, where one may come back. */
export function cancel({ streamId }) {
  if (streamId) send(`/v1/streams/${streamId}`, { method: "DELETE" }).catch(() => {});
}
