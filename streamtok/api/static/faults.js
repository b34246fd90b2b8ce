// Streams that break on purpose, where the server was started with --faults.

import { $, make } from "./dom.js";

// What is asked for, what the button says, and what there is to see.
export const FAULTS = [
  ["chunk-cut;at=12", "cut in a chunk", "the connection closes within a chunk: there is no zero chunk"],
  ["reset;at=12", "reset", "the connection is reset: what came is not the whole answer"],
  ["stall;at=12;seconds=4", "stall", "a pause of 4 s, then it goes on"],
  ["slow-headers;seconds=3", "slow head", "the head comes after 3 s"],
  ["error;at=12", "error event", "the status was 200, so the error is an event"],
  ["bad-json;at=12", "bad JSON", "an event is cut"],
  ["character-cut;at=5", "cut character", "a 🦊 in two chunks: legal, and often shown wrongly"],
  ["character-broken;at=5", "broken character", "a 🦊 in two events: each half is no character"],
  ["coalesced;count=4", "coalesced", "4 events in each chunk: legal"],
  ["heartbeat", "comments and ids", "comments between the lines: legal"],
  ["crlf", "CR LF", "lines end with CR LF: legal"],
  ["one-byte", "one byte a write", "each byte by itself: legal"],
  ["drip;bytes_per_s=3000", "drip", "3000 bytes a second: legal"],
  ["finish-missing", "no finish_reason", "nothing says why it ended"],
  ["done-missing", "no [DONE]", "only the end of the body says that it is over"],
  ["status;code=503", "503", "no answer at all, and when to try again"],
];

/** Makes the buttons; `break_` is what one does. */
export function makeFaults(allowed, break_) {
  $("faults-off").hidden = allowed;
  $("faults-on").hidden = !allowed;
  if (!allowed) return;
  $("faults-on").replaceChildren(...FAULTS.map(([fault, name, what]) => {
    const button = make("button", { type: "button", title: `X-Fault: ${fault}` }, name);
    const say = () => { $("fault-said").textContent = `${what} (X-Fault: ${fault})`; };
    for (const kind of ["pointerover", "focus"]) button.addEventListener(kind, say);
    button.addEventListener("click", () => break_(fault));
    return button;
  }));
}
