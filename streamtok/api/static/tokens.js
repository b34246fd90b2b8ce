// The tokens of an answer: how likely each was, what else could have come, and its bytes.

import { $, inHex, inMs, inPercent, make, visible } from "./dom.js";
import { known } from "./server.js";

/** Returns a piece of text that can be pointed at and opened. */
export function makeToken(event, answer, isFirst) {
  const token = make("span", { className: "token", tabIndex: isFirst ? 0 : -1 }, event.text);
  token.setAttribute("role", "button");
  if (event.logprobs) {
    const logprob = event.logprobs.reduce((total, entry) => total + entry.logprob, 0);
    token.style.setProperty("--p", Math.exp(logprob).toFixed(3));
  }
  Object.assign(token, { event, answer });  // what `showTip` and `openToken` show
  event.token = token;
  return token;
}

/** Returns what an entry of `logprobs.content` could have been, the likeliest first. */
export function candidates(entry) {
  const others = entry.top_logprobs.filter((other) => other.token !== entry.token);
  return [entry, ...others].toSorted((a, b) => b.logprob - a.logprob);
}

/**
 * Returns what each candidate is drawn with: the model's probabilities after temperature, min_p,
 * top_k and top_p, in this order. It is exact where all that is left is among the candidates.
 */
export function drawnWith(found, settings) {
  const { temperature, top_p: topP, top_k: topK, min_p: minP } = settings;
  if (temperature === 0) return found.map((_, index) => (index === 0 ? 1 : 0));
  let weights = found.map(({ logprob }) => Math.exp((logprob - found[0].logprob) / temperature));
  weights = weights.map((weight, index) => (weight < minP || (topK && index >= topK) ? 0 : weight));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  let before = 0;
  weights = weights.map((weight) => {
    const kept = before < topP * total ? weight : 0;
    before += weight;
    return kept;
  });
  const left = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / left);
}

/** Returns the text of a candidate; one that is only a part of a character has only bytes. */
const nameOf = ({ token, bytes }) =>
  (token.includes("\ufffd") ? `bytes ${inHex(bytes)}` : visible(token));

/** Whether an answer can go on from a candidate: not from the end, nor from half a character. */
const canContinue = ({ token }) => token !== "" && token !== known.end && !token.includes("\ufffd");

/**
 * Returns a row for each candidate: how likely the model finds it and, where the `settings` of the
 * request are all that decides, what it is drawn with. `pick` makes them buttons.
 */
export function makeCandidates(entry, settings, { chosen = entry.token, pick = null } = {}) {
  const found = candidates(entry), shares = settings ? drawnWith(found, settings) : null;
  return found.map((candidate, index) => {
    const isChosen = candidate.token === chosen;
    const share = Math.exp(candidate.logprob);
    const bar = make("span", { className: "bar", ariaHidden: "true" }, make("i"), make("b"));
    bar.style.setProperty("--p", share.toFixed(4));
    bar.style.setProperty("--q", shares?.[index].toFixed(4) ?? 0);
    const cells = [make("span", { className: "name" }, nameOf(candidate)), bar,
      make("span", { className: "number" }, inPercent(share)),
      make("span", { className: "number drawn" }, shares ? inPercent(shares[index]) : "")];
    const className = `candidate ${isChosen ? "chosen" : ""}`;
    if (!pick) return make("p", { className }, ...cells);
    const button = make("button", { className, type: "button", disabled: !canContinue(candidate) }, ...cells);
    button.title = isChosen ? "what came" : "go on from here with this instead";
    button.addEventListener("click", () => pick(candidate, isChosen));
    return button;
  });
}

/** Shows what could have come instead of a token, while it is pointed at. */
export function showTip(token) {
  if (!token.event.logprobs || $("token").matches(":popover-open")) return;
  $("tip").replaceChildren(...token.event.logprobs.flatMap(
    (entry) => makeCandidates({ ...entry, top_logprobs: entry.top_logprobs.slice(0, 4) }, token.answer.settings)));
  $("tip").hidden = false;
  place($("tip"), token);
  token.setAttribute("aria-describedby", "tip");
}

export const hideTip = () => { $("tip").hidden = true; };

/** Opens all that is known of a token: its bytes, its chunk, its times, and the other candidates. */
export function openToken(token, branch) {
  const { event, answer } = token, { recording } = answer;
  const bytes = new TextEncoder().encode(event.text);
  const chunks = event.chunks ?? [];
  const facts = [["text", visible(event.text)], ["UTF-8", inHex(bytes)]];
  const ids = chunks.flatMap((chunk) => chunk.ids);
  if (ids.length) facts.push(["token id", ids.join(", ")]);
  if (chunks.length) {
    facts.push(["chunk", chunks.map(({ frame, size }) => `0x${frame} = ${size} bytes`).join(" + ")]);
    facts.push(["left the server", inMs(recording.leftMs(event))]);
  }
  facts.push(["reached the browser", inMs(event.atMs)]);
  const list = make("dl", {}, ...facts.map(([name, value]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  const toRow = make("button", { type: "button" }, "Show it on the wire");
  toRow.addEventListener("click", () => showRow(event, answer));
  $("token").replaceChildren(make("h3", {}, "One token"), list, toRow, ...alternatives(event, answer, branch));
  hideTip();
  $("token").showPopover();
  place($("token"), token);
  $("token").querySelector("button").focus();
}

function alternatives(event, answer, branch) {
  if (!event.logprobs) {
    return [make("p", { className: "soft" }, "What else could have come is told with each token where "
      + "“Probabilities” in the settings is ticked (not in bare text).")];
  }
  const entry = event.logprobs[0];
  const pick = (candidate, isChosen) => {
    $("token").hidePopover();
    if (!isChosen) branch(answer, event, candidate);
  };
  return [
    make("h3", {}, "What could have come"),
    make("p", { className: "soft key" }, make("span", {}, "Choose another one: the answer goes on from there."),
      make("span", { className: "number" }, "model"), make("span", { className: "number" }, "drawn with")),
    ...makeCandidates(entry, answer.settings, { pick }),
  ];
}

function showRow(event, answer) {
  $("token").hidePopover();
  document.dispatchEvent(new CustomEvent("show-wire", { detail: answer }));
  if (!event.row) return;
  event.row.open = true;
  event.row.scrollIntoView({ block: "center" });
  event.row.querySelector("summary").focus();
}

/** Puts a box next to a token, within the window. */
function place(box, token) {
  const at = token.getClientRects()[0], { width, height } = box.getBoundingClientRect();
  const below = at.bottom + height + 16 < innerHeight;
  box.style.left = `${Math.max(8, Math.min(at.left, innerWidth - width - 8))}px`;
  box.style.top = `${Math.max(8, below ? at.bottom + 8 : at.top - height - 8)}px`;
}
