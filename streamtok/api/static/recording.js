// What is measured of one answer: by the browser's clock, and by the server's.

import { BodyReader } from "./events.js";

/** The clock and the counts of one answer, as this browser sees it. */
export class Recording {
  startedMs = performance.now();
  endedMs = null;  // since the start, as all times below
  connections = [];  // one, unless it was lost: { status, statusText, headers, headMs, server }
  pieces = [];  // what the reads returned: { connection, atMs, bytes }
  events = [];  // each with `atMs`, its `connection`, and where its bytes are in that one's body
  id = null;  // the answer's
  lastEventId = null;  // from where it can go on
  usage = null;
  isBare = false;  // bare text came, in which a piece may hold several tokens
  counts = { reads: 0, bytes: 0, textBytes: 0, heartbeats: 0 };
  lostMs = null;  // when the connection was lost, until it is back
  #reader = null;

  elapsedMs() {
    return this.endedMs ?? performance.now() - this.startedMs;
  }

  /** Takes the head of an answer, or of one that gives the rest of it. */
  begin(head, accepted) {
    this.connections.push({ headMs: this.elapsedMs(), ...head, bytes: 0, server: null });
    this.#reader = new BodyReader(head.headers["content-type"], accepted);
    this.lostMs = null;
  }

  get requestId() {
    return this.connections.at(-1)?.headers["x-request-id"] ?? null;
  }

  get streamId() {
    return this.connections[0]?.headers["x-stream-id"] ?? null;
  }

  /** Takes a piece of the body; returns the events that it completes. */
  take(bytes, atMs = this.elapsedMs()) {
    this.pieces.push({ connection: this.connections.length - 1, atMs, bytes });
    this.counts.reads += 1;
    return this.#reader.feed(bytes).map((event) => this.#add(event, atMs));
  }

  /** Returns what is left of a body that has ended: nothing, if it was whole. */
  finish(atMs = this.elapsedMs()) {
    const rest = this.#reader?.end() ?? [];
    this.#reader = null;
    return rest.map((event) => this.#add(event, atMs));
  }

  /** Notes the gap before an event, none for the first one, and its place in the body. */
  #add(event, atMs) {
    const before = this.events.at(-1), connection = this.connections.at(-1);
    Object.assign(event, {
      atMs, connection, from: connection.bytes, number: this.events.length, read: this.counts.reads,
      gapMs: before ? atMs - before.atMs : null, sameRead: before?.read === this.counts.reads,
    });
    this.events.push(event);
    connection.bytes += event.bytes.length;
    this.counts.bytes += event.bytes.length;
    this.counts.heartbeats += event.kind === "heartbeat";
    this.counts.textBytes += event.text ? new TextEncoder().encode(event.text).length : 0;
    this.id ??= event.chunk?.id ?? null;
    this.lastEventId = event.id ?? this.lastEventId;
    this.usage = event.usage ?? this.usage;
    this.isBare ||= event.text !== undefined && !event.chunk;
    return event;
  }

  /** Whether anything is known of the server's side. */
  get hasServer() {
    return this.connections.some(({ server }) => server);
  }

  /** Returns when an event left the server, on the server's clock, since it had the request. */
  sentMs(event) {
    return this.connections.length > 1 ? this.leftMs(event) : event.chunks?.at(-1)?.ms;
  }

  /** Returns when an event left the server, on the browser's clock; see `ServerRecord`. */
  leftMs(event) {
    return event.chunks?.at(-1)?.ms + event.connection.server?.shiftMs;
  }

  /** The events that carry text. */
  get texts() {
    return this.events.filter((event) => event.text);
  }
}

/** Returns the figures of moments at which text came, the first of them in ms since the request. */
export function figures(textMs) {
  const gapsMs = textMs.slice(1).map((atMs, index) => atMs - textMs[index]);
  const spanMs = textMs.at(-1) - textMs[0];
  return {
    firstMs: textMs[0],
    medianMs: median(gapsMs),
    longestMs: Math.max(...gapsMs),
    perS: spanMs > 0 ? 1000 * gapsMs.length / spanMs : NaN,
    gapsMs,
  };
}

function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/**
 * What the server recorded of a request (GET /v1/traces/{id}): the chunks it wrote, and when.
 *
 * The two clocks do not agree, and nothing says how long a byte was under way. So the server's
 * times are laid as late as they can be: the event that was fastest took no time at all. What the
 * others took more is what a network, a proxy or a busy browser has held back.
 */
export class ServerRecord {
  chunks = [];  // { ms, frame, from, size, ids }: `from` is its place in the body
  headMs = null;
  endMs = null;  // of the zero chunk
  shiftMs = 0;  // from the server's times to the browser's

  constructor(lines, connection, events) {
    for (const line of lines) this.#take(line);
    for (const event of events) event.chunks = this.#chunksOf(event);
    const delays = events.map((event) => event.atMs - event.chunks.at(-1)?.ms);
    if (this.headMs !== null) delays.push(connection.headMs - this.headMs);
    const known = delays.filter(Number.isFinite);
    this.shiftMs = known.length ? Math.min(...known) : 0;
  }

  #take(line) {
    if (line.event !== "sent") return;
    if (line.kind === "head") {
      this.headMs ??= line.ms;
    } else if (line.kind === "framing" && line.note.startsWith("0x")) {
      const last = this.chunks.at(-1);
      const from = last ? last.from + last.size : 0;
      this.chunks.push({ ms: line.ms, frame: line.text.trim(), from, size: 0, ids: [] });
    } else if (line.note === "the zero chunk: that was the body") {
      this.endMs = line.ms;
    } else if (line.kind === "data" && this.chunks.length) {
      const chunk = this.chunks.at(-1);
      chunk.size += line.bytes;
      chunk.ids.push(...(line.token_ids ?? []));
    }
  }

  /** Returns the chunks that an event came in: usually one. */
  #chunksOf({ from, bytes }) {
    return this.chunks.filter((chunk) => chunk.from < from + bytes.length && from < chunk.from + chunk.size);
  }
}
