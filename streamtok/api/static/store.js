// The conversation as it is kept in the browser's tab, so that loading the page again loses nothing.
//
// What came is kept as it came, piece by piece with its time; it is read again to show it again.

import { chat } from "./turns.js";

const NAME = "chat";

const toText = (bytes) => Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
const toBytes = (text) => Uint8Array.from(text, (character) => character.charCodeAt(0));

/** Keeps the conversation; where there is no room for all, the wires of the oldest answers go. */
export function save() {
  const turns = chat.turns.map(({ question, left, answers }) =>
    ({ question, left, answers: answers.map(pack) }));
  const wires = turns.flatMap(({ answers }) => answers);
  for (;;) {
    try {
      return sessionStorage.setItem(NAME, JSON.stringify(turns));
    } catch {
      const oldest = wires.shift();
      if (!oldest) return sessionStorage.removeItem(NAME);
      oldest.pieces = [];
    }
  }
}

function pack({ recording, body, more, fault, accept, start, before, text, remark, failed, complete, closed, booked }) {
  const { connections, pieces, startedMs, endedMs } = recording;
  return {
    body, more, fault, accept, start, before, text, remark, failed, complete, closed, booked, endedMs,
    startedAt: performance.timeOrigin + startedMs,  // since 1970: another page has another origin
    connections: connections.map(({ status, statusText, headers, headMs }) => ({ status, statusText, headers, headMs })),
    pieces: pieces.map(({ connection, atMs, bytes }) => [connection, atMs, toText(bytes)]),
  };
}

/** Returns the turns that were kept. */
export function restore() {
  try {
    return JSON.parse(sessionStorage.getItem(NAME)) ?? [];
  } catch {
    return [];
  }
}

/** Reads again what came of an answer; returns its events. */
export function replay(recording, { connections, pieces, accept, startedAt, endedMs }) {
  recording.startedMs = startedAt - performance.timeOrigin;
  const events = [];
  connections.forEach((head, index) => {
    recording.begin(head, accept);
    for (const [connection, atMs, text] of pieces) {
      if (connection === index) events.push(...recording.take(toBytes(text), atMs));
    }
    events.push(...recording.finish(pieces.at(-1)?.[1] ?? 0));
  });
  recording.endedMs = endedMs;
  return events;
}
