// What is measured of one request: by the browser's clock, and by the server's.

/** The clock and the counts of one request, as this browser sees it. */
export class Recording {
  startedMs = performance.now();
  endedMs = null;  // since the start, as all times below
  headMs = null;
  events = [];  // all that came, each with `atMs` and where its bytes stand in the body
  id = null;  // the answer's
  requestId = null;
  usage = null;
  isBare = false;  // bare text came, in which a piece may hold several tokens
  counts = { reads: 0, bytes: 0, textBytes: 0, heartbeats: 0 };
  server = null;  // what the server has recorded, once that is known

  elapsedMs() {
    return this.endedMs ?? performance.now() - this.startedMs;
  }

  /** Takes an event; notes the gap before it, none for the first one, and its place in the body. */
  add(event) {
    const before = this.events.at(-1);
    event.gapMs = before ? event.atMs - before.atMs : null;
    event.sameRead = before?.read === event.read;
    event.from = this.counts.bytes;
    event.number = this.events.length;
    this.events.push(event);
    this.counts.bytes += event.bytes.length;
    this.counts.heartbeats += event.kind === "heartbeat";
    this.counts.textBytes += event.text ? new TextEncoder().encode(event.text).length : 0;
    this.id ??= event.chunk?.id ?? null;
    this.usage = event.usage ?? this.usage;
    this.isBare ||= event.text !== undefined && !event.chunk;
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
 * What the server recorded of a request (GET /v1/traces/{id}): its steps, and the chunks it wrote.
 *
 * The two clocks do not agree, and nothing says how long a byte was under way. So the server's
 * times are laid as late as they can be: the event that was fastest took no time at all. What the
 * others took more is what a network, a proxy or a busy browser has held back.
 */
export class ServerRecord {
  steps = [];
  chunks = [];  // { ms, frame, from, size, ids, texts }: `from` is its place in the body
  body = "";  // of an answer that is not chunked
  headMs = null;
  endMs = null;  // of the zero chunk
  shiftMs = 0;  // from the server's times to the browser's

  constructor(lines, recording) {
    for (const line of lines) this.#take(line);
    const delays = recording.events.map((event) => event.atMs - this.chunkOf(event)?.ms);
    if (this.headMs !== null && recording.headMs !== null) delays.push(recording.headMs - this.headMs);
    const known = delays.filter(Number.isFinite);
    this.shiftMs = known.length ? Math.min(...known) : 0;
  }

  #take(line) {
    if (line.event !== "sent") {
      this.steps.push(line);
    } else if (line.kind === "head") {
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
  chunksOf({ from, bytes }) {
    return this.chunks.filter((chunk) => chunk.from < from + bytes.length && from < chunk.from + chunk.size);
  }

  /** Returns the chunk that completed an event. */
  chunkOf(event) {
    return this.chunksOf(event).at(-1);
  }

  /** Returns when an event left, on the browser's clock; see the class. */
  leftMs(event) {
    return this.chunkOf(event)?.ms + this.shiftMs;
  }

  step(name) {
    return this.steps.find((step) => step.event === name);
  }
}
