// The picture of one answer: when each event left the server, when it reached the browser, and the
// gaps between the tokens.

import { $, inMs } from "./dom.js";
import { figures } from "./recording.js";

const LEFT = 18, REACHED = 50, TICK = 12, TOP = 74, BELOW = 16;  // in pixels

/** Returns the next of 1, 2, 5, 10, 20, 50 and so on. */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((factor) => factor * power >= value) * power;
}

const set = (id, attributes) => {
  for (const [name, value] of Object.entries(attributes)) $(id).setAttribute(name, value);
};

/** Draws the lanes of a recording; `shownMs` is how far the chat is where it lags behind. */
export function drawLanes(recording, shownMs = null) {
  const { events, hasServer } = recording;
  const width = $("plot").clientWidth, bottom = $("plot").clientHeight - BELOW;
  if (!width) return;  // it is out of sight
  const texts = recording.texts, { gapsMs, firstMs, medianMs } = figures(texts.map((event) => event.atMs));
  const endMs = recording.endedMs ?? roundUp(Math.max(recording.elapsedMs(), 500));
  const highMs = roundUp(Math.max(1, ...gapsMs));
  const x = (ms) => (ms / endMs * width).toFixed(1);
  const y = (ms) => (bottom - ms / highMs * (bottom - TOP)).toFixed(1);
  const ticks = (moments, top) => moments.map((ms) => `M${x(ms)} ${top}v${TICK}`).join("");
  const isText = (event) => Boolean(event.text);
  const left = events.filter((event) => event.chunks?.length);
  const slants = left.map((event) =>
    `M${x(recording.leftMs(event))} ${LEFT + TICK}L${x(event.atMs)} ${REACHED}`);
  set("left-base", { d: hasServer ? `M0 ${LEFT + TICK}H${width}` : "" });
  set("left-ticks", { d: ticks(left.filter(isText).map((event) => recording.leftMs(event)), LEFT) });
  set("left-others", { d: ticks(left.filter((e) => !e.text).map((event) => recording.leftMs(event)), LEFT) });
  set("slants", { d: slants.join("") });
  set("reached-base", { d: `M0 ${REACHED}H${width}` });
  set("reached-ticks", { d: ticks(texts.map((event) => event.atMs), REACHED) });
  set("reached-others", { d: ticks(events.filter((e) => !e.text).map((event) => event.atMs), REACHED) });
  set("axis", { d: `M0 ${bottom}H${width}` });
  const bars = gapsMs.map((gap, index) => `M${x(texts[index + 1].atMs)} ${bottom}V${y(gap)}`);
  set("bars", { d: bars.join("") });
  set("median", { d: gapsMs.length ? `M${x(firstMs)} ${y(medianMs)}H${width}` : "" });
  set("first", { d: firstMs === undefined ? "" : `M${x(firstMs)} ${REACHED}V${bottom}` });
  set("wait", { x: 0, y: REACHED, width: x(firstMs ?? recording.elapsedMs()), height: bottom - REACHED });
  set("shown", { d: shownMs === null ? "" : `M${x(shownMs)} ${LEFT}V${bottom}` });
  set("reached-name", { y: REACHED - 4 });
  set("x-name", { x: width, y: bottom + 13 });
  set("y-name", { y: bottom + 13 });
  $("left-name").textContent = hasServer ? "left the server" : "";
  $("x-name").textContent = `${(endMs / 1000).toFixed(recording.endedMs ? 2 : 1)} s`;
  $("y-name").textContent = gapsMs.length ? `gap before each token; full height ${highMs} ms` : "";
}

/** Shows the figures by both clocks, and says which is which. */
export function showFigures(recording) {
  const { counts, usage, texts } = recording;
  const here = figures(texts.map((event) => event.atMs));
  const there = figures(texts.map((event) => recording.sentMs(event)).filter(Number.isFinite));
  const perS = (value) => (Number.isFinite(value) && !recording.isBare ? value.toFixed(0) : "–");
  for (const [side, { firstMs, medianMs, longestMs, perS: speed }] of [["here", here], ["there", there]]) {
    $(`${side}-first`).textContent = inMs(firstMs);
    $(`${side}-median`).textContent = inMs(medianMs);
    $(`${side}-longest`).textContent = inMs(longestMs);
    $(`${side}-speed`).textContent = perS(speed);
  }
  $("stat-tokens").textContent = sayTokens(recording, texts.length, usage);
  $("stat-bytes").textContent = `${counts.textBytes} of ${counts.bytes} bytes are text`;
}

/** Says how many tokens there were, and why that are more than pieces of text. */
function sayTokens(recording, pieces, usage) {
  if (!usage) return recording.isBare ? "– (bare text does not tell)" : `${pieces} so far`;
  const all = usage.completion_tokens, rest = all - pieces;
  if (!rest || recording.isBare) return `${all}`;
  if (rest > 0) {
    const last = rest === 1 ? "one without: it ended the answer" : `${rest} without text of their own`;
    return `${all}: ${pieces} with text, ${last}`;
  }
  return `${all}, in ${pieces} pieces of text`;
}
