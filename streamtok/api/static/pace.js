// How fast the chat shows what has come: at once, at a slow pace for a class, or step by step.
//
// The stream itself is not slowed down: the browser holds back what it has received. So the times on
// the wire stay true, and the pace may change while an answer is being shown.

import { $ } from "./dom.js";

const SPEEDS = [0, 1, 2, 4, 8, 16, 32, Infinity];  // tokens per second; 0: one for each key

let wake = () => {};
let lastMs = -Infinity;
let steps = 0;

const perS = () => SPEEDS[$("pace").valueAsNumber];
export const isHeldBack = () => perS() < Infinity;
export const isStepping = () => perS() === 0;

/** Lets one token through. */
export function step() {
  steps += 1;
  wake();
}

/** Waits until the next token may be shown, or `signal` says that none will be. */
export async function pass(signal) {
  steps = 0;
  for (;;) {
    const nowMs = performance.now();
    const dueMs = isStepping() ? Infinity : lastMs + 1000 / perS();
    if (signal.aborted || steps > 0 || nowMs >= dueMs) break;
    await new Promise((resolve) => {
      wake = resolve;
      if (Number.isFinite(dueMs)) setTimeout(resolve, dueMs - nowMs);
      signal.addEventListener("abort", resolve, { once: true });
    });
  }
  lastMs = performance.now();
}

/** Says what the slider stands at, and goes on by it. */
export function changePace() {
  const speed = perS();
  const name = speed === Infinity ? "as they come"
    : speed ? `${speed} a second` : "one for each key";
  $("pace-name").textContent = name;
  $("pace").setAttribute("aria-valuetext", name);
  wake();
}
