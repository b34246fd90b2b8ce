// The rows of the wire: what was sent, the head that came back, and every event.

import { $, inHex, inMs, make, plural, visible } from "./dom.js";

const number = (text, name = "") => make("span", { className: `number ${name}` }, text);

/** Returns the part of the wire that belongs to one answer; it stays when others come. */
export function makeWire({ path, headers, body }) {
  const sent = Object.entries(headers).map(([name, value]) => `${name}: ${value}\n`).join("");
  const request = make("details", {},
    make("summary", {}, make("code", {}, `POST ${path}`)),
    sent ? make("pre", { className: "sent" }, sent.trimEnd()) : "",
    make("pre", { className: "body" }, JSON.stringify(body, null, 2)));
  const head = make("div", { className: "head" }, request);
  const rows = make("div", { className: "rows", role: "group" });
  rows.ariaLabel = "Events; arrow keys move, Enter opens";
  return { head, rows, element: make("div", { className: "exchange" }, head, rows) };
}

/** Returns the head of an answer. */
export function makeHead({ status, statusText, headers, headMs }) {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\n`);
  const after = make("span", { className: "number" }, ` after ${inMs(headMs)}\n`);
  return make("pre", {}, make("b", {}, `${status} ${statusText}`), after, lines.join("").trimEnd());
}

/** Returns the row that says how an answer goes on over another connection. */
export const makeReturn = (connection, asked) => make("div", { className: "head back" },
  make("pre", {}, make("b", {}, asked)), makeHead(connection));

/** Returns the row of an event. What is inside is made when the row is first opened. */
export function makeRow(event) {
  const gap = event.sameRead ? "same read" : event.gapMs === null ? "" : `+${event.gapMs.toFixed(1)}`;
  const label = make("span", {}, event.text ? visible(event.label) : event.label);
  const summary = make("summary", { tabIndex: event.number ? -1 : 0 },
    number("", "left-at"), number(event.atMs.toFixed(1), "reached"), number(gap, "gap"),
    number(event.bytes.length, "size"), number("", "frame"), label);
  const row = make("details", { className: `row ${event.kind}`, id: `event-${event.number}` }, summary);
  summary.ariaLabel =
    `${event.label}, after ${event.atMs.toFixed(0)} milliseconds, ${event.bytes.length} bytes`;
  row.addEventListener("toggle", () => row.append(makeInside(event)), { once: true });
  event.row = row;
  return row;
}

/** Adds to the rows what only the server knows: when each event left, and in which chunk. */
export function completeRows(recording) {
  for (const event of recording.events) {
    const chunks = event.chunks ?? [];
    if (!event.row || !chunks.length) continue;
    event.row.querySelector(".left-at").textContent = recording.leftMs(event).toFixed(1);
    event.row.querySelector(".frame").textContent = chunks.map(({ frame }) => frame).join("+");
  }
}

const mark = (text, className) => make("span", { className }, text);

/** Returns an event as it stood on the wire, with its chunk framing where that is known. */
function makeInside(event) {
  const chunks = event.chunks ?? [];
  const parts = chunks.length ? chunks.flatMap((chunk) => inChunk(event, chunk)) : inLines(event.bytes);
  const hex = make("details", {}, make("summary", { className: "soft" }, "Hex"));
  hex.addEventListener("toggle", () => hex.append(make("pre", {}, hexDump(event.bytes))), { once: true });
  return make("div", { className: "inside" }, make("pre", {}, ...parts), hex);
}

/** Returns what of an event is in a chunk, with the chunk's size before and its end behind it. */
function inChunk({ from, bytes }, chunk) {
  const start = Math.max(chunk.from - from, 0), end = chunk.from + chunk.size - from;
  return [
    ...(chunk.from >= from ? [mark(`${chunk.frame}\\r\\n\n`, "frame")] : []),
    ...inLines(bytes.slice(start, end)),
    ...(end <= bytes.length ? [mark("\\r\\n\n", "frame")] : []),
  ];
}

const inLines = (bytes) => new TextDecoder().decode(bytes).split(/(?<=\n)/).flatMap((line) => {
  const text = line.replace(/\r?\n$/, "");
  return text === line ? [line] : [text, mark(line.endsWith("\r\n") ? "\\r\\n\n" : "\\n\n", "number")];
});

/** Returns lines of 16 bytes: offset, hexadecimal, ASCII. */
function hexDump(bytes) {
  return Array.from({ length: Math.ceil(bytes.length / 16) }, (_, index) => {
    const line = bytes.slice(16 * index, 16 * index + 16);
    const ascii = [...line].map((byte) => byte > 31 && byte < 127 ? String.fromCharCode(byte) : ".");
    const offset = (16 * index).toString(16).padStart(4, "0");
    return `${offset}  ${inHex(line).padEnd(47)}  ${ascii.join("")}`;
  }).join("\n");
}

/** Returns the row that says how the body ended. */
export function makeEnd(recording, chunk, text) {
  return make("div", { className: "end" }, number(""), number(recording.elapsedMs().toFixed(1)),
    number(""), number(""), number(chunk, "frame"), make("span", {}, text));
}

/** Shows how much has come, also where the wire itself is out of sight. */
export function showState({ counts, events, isBare }) {
  const beats = counts.heartbeats ? `, ${plural(counts.heartbeats, "heartbeat")}` : "";
  const reads = plural(counts.reads, "read");  // bare text has no events
  const size = isBare ? reads : `${plural(events.length, "event")} in ${reads}${beats}`;
  $("state").textContent = `${size}, ${counts.bytes} bytes`;
  $("wire-count").textContent = events.length || "";
}
