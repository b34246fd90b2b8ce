// Bytes to events. A body comes in pieces that may be cut anywhere, within a character too.

const LF = 10, CR = 13, COLON = 58, SPACE = 32;

/**
 * Server-sent events (WHATWG HTML, section 9.2). A line ends with LF, CR or CR LF, an event at an
 * empty line: both are found in bytes, because in UTF-8 no part of a longer character looks like
 * LF or CR. So characters are decoded only when the event is whole. A comment is given at once and
 * by itself, wherever it stands: servers send them as heartbeats, while nothing else comes.
 */
class EventDecoder {
  #event = [];  // bytes of the lines of an event that is not complete yet
  #line = [];
  #afterCr = false;  // whether an LF that comes now belongs to the line before

  *feed(piece) {
    for (const byte of piece) {
      if (this.#afterCr) {
        this.#afterCr = false;
        if (byte === LF) this.#line.push(LF);
        yield* this.#endLine();
        if (byte === LF) continue;
      }
      this.#line.push(byte);
      if (byte === LF) yield* this.#endLine();
      this.#afterCr = byte === CR;
    }
  }

  /** Yields what is left when the body has ended: an event without its empty line is none. */
  *end() {
    if (this.#afterCr) yield* this.#endLine();
    const bytes = Uint8Array.from([...this.#event, ...this.#line]);
    if (bytes.length) yield { bytes, rest: true };
  }

  *#endLine() {
    const line = this.#line;
    [this.#line, this.#afterCr] = [[], false];
    if (line[0] === COLON) {
      const bytes = Uint8Array.from(line);
      yield { bytes, comment: new TextDecoder().decode(bytes).slice(1).trim() };
      return;
    }
    this.#event.push(...line);
    if (line.every((byte) => byte === LF || byte === CR)) yield this.#take();
  }

  #take() {
    const bytes = Uint8Array.from(this.#event);
    this.#event = [];
    const lines = new TextDecoder().decode(bytes).split(/\r\n|\r|\n/);
    const values = (name) => lines.filter((line) => line.startsWith(`${name}:`))
      .map((line) => line.slice(name.length + 1).replace(/^ /, ""));
    const data = values("data");
    return { bytes, data: data.length ? data.join("\n") : null, id: values("id").at(-1) };
  }
}

/** Cuts bytes into lines, each of which is one object; a space between them is a heartbeat. */
class LineDecoder {
  #bytes = [];

  *feed(piece) {
    for (const byte of piece) {
      if (byte === SPACE && !this.#bytes.length) {
        yield { bytes: Uint8Array.of(byte), comment: "a space, which JSON allows here" };
        continue;
      }
      this.#bytes.push(byte);
      if (byte !== LF) continue;
      const bytes = Uint8Array.from(this.#bytes);
      this.#bytes = [];
      yield { bytes, data: new TextDecoder().decode(bytes).trim() };
    }
  }

  *end() {
    if (this.#bytes.length) yield { bytes: Uint8Array.from(this.#bytes), rest: true };
  }
}

/** Takes bytes as they come: of bare text nothing says where a chunk began. */
class TextPieces {
  #decoder = new TextDecoder();

  *feed(piece) {
    yield { bytes: piece, text: this.#decoder.decode(piece, { stream: true }) };
  }

  *end() {}
}

const DECODERS = { "application/x-ndjson": LineDecoder, "text/plain": TextPieces };

/** Turns the pieces of one body into events, each with what it is and what its row says. */
export class BodyReader {
  #decoder;

  /** `accepted` is the type that was asked for. */
  constructor(contentType, accepted) {
    const type = contentType?.split(";")[0];
    // A server may declare another type than it sends (there is a fault for that): what was asked
    // for counts where it says text.
    const known = type === "text/plain" ? accepted : type;
    this.#decoder = new (DECODERS[known] ?? EventDecoder)();
  }

  feed(piece) {
    return [...this.#decoder.feed(piece)].map((event) => ({ ...event, ...describe(event) }));
  }

  /** Returns what is left when no more will come. */
  end() {
    return [...this.#decoder.end()].map((event) => ({ ...event, ...describe(event) }));
  }
}

/** Returns what an event is, and what its row says. */
function describe({ data, text: bare, comment, rest }) {
  if (rest) return { kind: "error", label: "incomplete: here it ended" };
  if (bare !== undefined) return { kind: "text", label: bare, text: bare };
  if (comment !== undefined) return { kind: "heartbeat", label: `heartbeat: ${comment}` };
  if (data === null) return { kind: "empty", label: "an event without data, which is ignored" };
  if (data === "[DONE]") return { kind: "done", label: "[DONE]" };
  let chunk;
  try {
    chunk = JSON.parse(data);
  } catch {
    const error = { code: "bad_json", message: `an event is no JSON: ${data.slice(0, 200)}` };
    return { kind: "error", label: `no JSON: ${data}`, error };
  }
  if (chunk.error) return { kind: "error", label: chunk.error.message, error: chunk.error, chunk };
  const [choice] = chunk.choices ?? [];
  if (!choice) {
    const { usage } = chunk;
    return { kind: "usage", label: usage ? sumUp(usage) : "no choice, no usage", usage, chunk };
  }
  const { delta, logprobs, finish_reason: reason } = choice;
  const rest_ = { logprobs: logprobs?.content ?? undefined, chunk };
  const text = delta.content ?? "";
  if (reason) return { kind: "finish", label: `finish_reason: ${reason}`, reason, text, ...rest_ };
  if (!text && delta.role) return { kind: "role", label: `role: ${delta.role}`, chunk };
  return { kind: "text", label: text, text, ...rest_ };
}

const sumUp = ({ prompt_tokens: prompt, completion_tokens: completion, total_tokens: total }) =>
  `usage: ${prompt} prompt + ${completion} completion = ${total} tokens`;
