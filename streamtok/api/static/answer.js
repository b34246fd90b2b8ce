// One answer: it is asked for, it comes, and it is shown as it comes.
//
// To follow it, begin with `run`, then `receive` and `show`.

import { cancel, readAnswer, ServerError, URL_PATH } from "./connection.js";
import { noticeContext } from "./context.js";
import { $, inMs, make, pick, plural, PREFIX, say, stayAtEnd } from "./dom.js";
import { drawLanes, showFigures } from "./lanes.js";
import { isHeldBack, isStepping, pass } from "./pace.js";
import { Recording } from "./recording.js";
import { askTraces, askUsage, known } from "./server.js";
import { makeCandidates, makeToken } from "./tokens.js";
import { chat } from "./turns.js";
import { completeRows, makeEnd, makeRow, makeWire, showState } from "./wire.js";

/** Sends the request of an answer, or for its rest, and shows what comes until it is over. */
export async function run(answer) {
  chat.stopper = new AbortController();
  const { signal } = chat.stopper;
  $("send").textContent = "Stop";
  say("The answer is being written.");
  paint(answer, -Infinity);
  await receive(answer, signal).catch((error) => explain(answer, error));
  if (signal.aborted) cancel(answer.recording);
  chat.stopper = null;
  closeAnswer(answer);
  save();
  showServerSide(answer).catch(() => {});  // without it the page is as good as before
}

/** Makes both panes ready. New rows and text wait in fragments until they are painted. */
export function openAnswer(turn, { fault, body, more, start = "", before = "", from = "", accept = $("framing").value }) {
  // An answer that is to break must not mend itself.
  const canReturn = accept === "text/event-stream" && !fault;
  const extra = { accept, "x-trace": "1", ...(canReturn && { "x-resumable": "1" }), ...(fault && { "x-fault": fault }) };
  const element = make("div", { className: "answer streaming" });
  if (start) element.append(before, make("mark", {}, start.slice(before.length)));
  const answer = {
    turn, element, body, more, fault, accept, start, before, from,
    headers: { "content-type": "application/json", ...extra },
    recording: new Recording(), wire: makeWire({ path: URL_PATH, headers: extra, body }),
    settings: more.response_format ? null : { ...known.defaults, ...pick(body, ["temperature", "top_p"]) },
    text: start, remark: "", complete: false, failed: false, closed: false, shown: 0, shownMs: null,
    rows: new DocumentFragment(), pieces: new DocumentFragment(),
  };
  turn.answers.push(answer);
  if (from) turn.element.append(make("p", { className: "soft" }, from));
  turn.element.append(element);
  $("log").scrollTop = $("log").scrollHeight;
  addRequest(answer);
  showWire(answer);
  return answer;
}

/** Takes the events of an answer as they come, and shows them at the pace that is set. */
async function receive(answer, signal) {
  const { recording } = answer, waiting = [];
  let over = false, failure = null, wake = () => {};
  const take = (events) => {
    waiting.push(...events);
    wake();
  };
  const reading = readAnswer(answer, take, signal).catch((error) => { failure = error; }).finally(() => {
    over = true;
    recording.endedMs = recording.elapsedMs();
    wake();
  });
  while (!over || waiting.length) {
    if (!waiting.length) await new Promise((resolve) => { wake = resolve; });
    if (waiting.length) await showInTime(answer, waiting.shift(), waiting.length, signal);
    if (signal.aborted) break;
  }
  await reading;
  if (failure) throw failure;
  signal.throwIfAborted();
  answer.rows.append(makeEnd(recording, "", "the end of the body"));
}

async function showInTime(answer, event, behind, signal) {
  if (event.text) {
    if (isStepping() && event.logprobs) showStep(answer, event);
    await pass(signal);
    if (signal.aborted) return;
    answer.shownMs = behind ? event.atMs : null;
  }
  show(answer, event);
}

/** Shows one event: in the chat, and on the wire. */
export function show(answer, event) {
  if (event.text) {
    answer.pieces.append(makeToken(event, answer, answer.shown === 0));
    answer.shown += 1;
    answer.text += event.text;
  }
  answer.rows.append(makeRow(event));
  known.model ??= event.chunk?.model;
  if (event.error) explain(answer, new ServerError(event.error));
  if (event.reason || !event.chunk) answer.complete ||= Boolean(event.text || event.reason);
  if (event.reason === "length") answer.remark = "The answer was cut at its limit of tokens.";
}

/** Shows what the next token can be, before it is shown. */
function showStep(answer, event) {
  const choose = (candidate) => {
    const isDrawn = candidate.token === event.logprobs[0].token;
    if (isDrawn) $("next").click();
    else document.dispatchEvent(new CustomEvent("branch", { detail: [answer, event, candidate] }));
  };
  const rows = makeCandidates(event.logprobs[0], answer.settings, { chosen: null, pick: choose });
  $("candidates").replaceChildren(...rows);
  stayAtEnd($("log"), () => { $("stepping").hidden = false; });
}

/** Says why an answer has no proper end. */
function explain(answer, error) {
  const end = (text) => answer.rows.append(makeEnd(answer.recording, "", text));
  const stopped = error.name === "AbortError", told = error instanceof ServerError;
  answer.failed = !stopped;
  answer.error = error;
  answer.remark = stopped ? "Stopped." : told ? error.message : `Broken off: ${error.message}`;
  const how = answer.recording.streamId ? "the browser asked for it (DELETE)" : "the browser closed the connection";
  if (stopped) end(`stopped: ${how}, and so the server stops too`);
  else if (!told) end("broken off: no last chunk came");
}

/**
 * Brings the page up to date until the answer ends: the chat with every frame, the wire ten times a
 * second, because the time that painting takes would show in the gaps that are measured.
 */
function paint(answer, wireMs) {
  const { recording } = answer;
  if (answer.closed) return;
  const nowMs = performance.now(), due = nowMs - wireMs > 100;
  stayAtEnd($("log"), () => answer.element.append(answer.pieces));
  if (due) paintWire(answer);
  const behind = recording.texts.length - answer.shown;
  $("behind").textContent = isHeldBack() && behind ? `${behind} wait to be shown` : "";
  $("alive").textContent = recording.texts.length && recording.lostMs === null ? "" : waitingFor(recording);
  requestAnimationFrame(() => paint(answer, due ? nowMs : wireMs));
}

/** Says for what one waits, and what has come meanwhile. */
function waitingFor({ counts, connections, startedMs, lostMs }) {
  const sinceS = (ms) => `${((performance.now() - ms) / 1000).toFixed(1)} s`;
  if (lostMs !== null) return `The connection is lost; trying to come back: ${sinceS(lostMs)}`;
  if (performance.now() - startedMs < 700) return "";
  const beats = counts.heartbeats ? `, ${plural(counts.heartbeats, "heartbeat")} so far` : "";
  const what = connections.length ? "the first token" : "the head of the answer";
  return `Waiting for ${what}: ${sinceS(startedMs)}${beats}`;
}

function paintWire(answer) {
  if (chat.shown !== answer) return void answer.wire.rows.append(answer.rows);
  const isFirst = !answer.wire.rows.hasChildNodes() && answer.rows.hasChildNodes();
  stayAtEnd($("tape"), () => {
    answer.wire.rows.append(answer.rows);
    showMeasured(answer);
  });
  if (isFirst) $("tape").scrollTop = $("tape").scrollHeight;
}

function showMeasured({ recording, shownMs }) {
  $("measured").hidden = recording.events.length === 0;
  showState(recording);
  showFigures(recording);
  drawLanes(recording, shownMs);
}

export function closeAnswer(answer) {
  const { recording, element, turn } = answer;
  answer.closed = true;
  answer.shownMs = null;
  recording.endedMs ??= recording.elapsedMs();
  stayAtEnd($("log"), () => element.append(answer.pieces));
  paintWire(answer);
  element.classList.remove("streaming");
  $("stepping").hidden = true;
  $("behind").textContent = $("alive").textContent = "";
  const remark = answer.remark || (answer.text ? "" : "The answer is empty.");
  if (remark) {
    const className = answer.failed ? "failed" : "soft";
    stayAtEnd($("log"), () => turn.element.append(make("p", { className }, remark)));
  }
  $("send").textContent = "Send";
  if (chat.shown === answer) stayAtEnd($("tape"), () => showMetering(answer));
  say(`${answer.text} ${remark}`);
  if (answer.error?.status === 401) leadToKey();
  noticeContext(answer);
}

/** Leads to where the key is to be written. */
export function leadToKey() {
  $("settings").open = true;
  $("key").setAttribute("aria-invalid", "true");
  $("key").focus();
}

// The wire of one of the answers

/** Adds an answer to the list of those whose wire can be shown. */
function addRequest(answer) {
  const count = $("requests").children.length + 1;
  answer.tab = make("button", { type: "button", ariaLabel: `Request ${count}` }, `${count}`);
  answer.tab.addEventListener("click", () => showWire(answer));
  answer.element.addEventListener("click", () => showWire(answer));
  $("requests").append(answer.tab);
}

/** Shows the wire of an answer instead of another's. */
export function showWire(answer) {
  if (chat.shown === answer) return;
  chat.shown = answer;
  for (const tab of $("requests").children) tab.ariaPressed = String(tab === answer.tab);
  $("exchange").replaceChildren(answer.wire.element);
  $("code").hidden = true;
  $("copied").textContent = "";
  showMeasured(answer);
  showMetering(answer);
  showBooked(answer);
}

function showMetering({ recording }) {
  $("usage").textContent = `GET ${PREFIX}/v1/usage/${recording.id}`;
  $("usage-answer").textContent = "";
  $("metering").hidden = recording.id === null || recording.endedMs === null;
}

/** Shows what the server has recorded and booked, which is there when an answer is over. */
export async function showServerSide(answer) {
  const { recording } = answer;
  await askTraces(recording);
  completeRows(recording);
  const frame = answer.wire.rows.querySelector(".end .frame");
  if (frame && recording.connections.at(-1)?.server?.endMs) frame.textContent = "0";
  if (chat.shown === answer) stayAtEnd($("tape"), () => showMeasured(answer));
  if (recording.id !== null && !answer.booked) {
    const response = await askUsage(recording.id);
    if (response.ok) answer.booked = await response.json();
  }
  if (chat.shown === answer) stayAtEnd($("tape"), () => showBooked(answer));
}

function showBooked({ booked }) {
  $("server-side").hidden = !booked;
  if (!booked) return;
  const inMsOf = (seconds) => (seconds === null ? "–" : inMs(1000 * seconds));
  $("side-queue").textContent = inMsOf(booked.queued_s);
  $("side-prefill").textContent = inMsOf(booked.prefill_s);
  $("side-prompt").textContent =
    `${plural(booked.prompt_tokens, "token")}, ${booked.cached_tokens} of them computed before`;
}
