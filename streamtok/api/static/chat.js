// One turn of the conversation: a question goes out, an answer comes and is shown as it comes.
//
// To follow a request, begin with `ask`, then `run`, `receive` and `show`.

import { noticeContext } from "./context.js";
import { $, inMs, make, plural, PREFIX, say, stayAtEnd } from "./dom.js";
import { readEvents } from "./events.js";
import { drawLanes, showFigures } from "./lanes.js";
import { isHeldBack, isStepping, pass } from "./pace.js";
import { Recording } from "./recording.js";
import { askTrace, askUsage, identity, known } from "./server.js";
import { makeCandidates, makeToken } from "./tokens.js";
import { chat, leaveOut, messagesFor } from "./turns.js";
import { completeRows, makeEnd, makeRow, makeWire, showHead, showState } from "./wire.js";

export const URL_PATH = `${PREFIX}/v1/chat/completions`;
const CANDIDATES = 5;  // for each token; with more of them, they would be most of the wire
const CANDIDATES_IN_STEPS = 8;

/** An error that the server told us, with a status or within a stream. */
class ServerError extends Error {
  constructor({ message, code, type }, status) {
    super([status, code ?? type].filter(Boolean).join(" ") + `: ${message}`);
    Object.assign(this, { code, status });
  }
}

/** Returns the body of a request. A setting that is empty is left out: the server then decides. */
export function makeBody(messages, more = {}) {
  const model = known.model ? { model: known.model } : {};
  const body = { ...model, messages, stream: true, stream_options: { include_usage: true }, ...more };
  for (const name of ["temperature", "top_p", "seed", "max_tokens"]) {
    if ($(name).value !== "") body[name] = $(name).valueAsNumber;
  }
  const isBare = $("framing").value === "text/plain";  // in which there is no place for them
  if (!isBare && ($("logprobs").checked || isStepping())) {
    const most = isStepping() ? CANDIDATES_IN_STEPS : CANDIDATES;
    Object.assign(body, { logprobs: true, top_logprobs: most });
  }
  return body;
}

// What is asked

/** Sends `question` with all that was said before. `more` is what else the request's body has. */
export async function ask(question, { fault = "", more = {} } = {}) {
  const turn = { question, answers: [], left: false, element: make("div", { className: "turn" },
    make("div", { className: "question" }, question)) };
  chat.turns.push(turn);
  $("welcome").hidden = true;
  $("log").append(turn.element);
  await run(turn, { fault, body: makeBody(messagesFor(turn), more), more });
  const answer = turn.answers.at(-1);
  if (answer.text || answer.complete) return;
  // A question without an answer goes back into the field.
  chat.turns.splice(chat.turns.indexOf(turn), 1);
  $("message").value ||= question;
}

/** Lets an answer go on from one of its tokens with another candidate: a second answer. */
export async function branch(answer, event, candidate) {
  chat.stopper?.abort();
  await chat.running;
  const { turn } = answer, before = answer.start + textBefore(answer, event);
  const start = before + candidate.token;
  const messages = [...messagesFor(turn), { role: "assistant", content: start }];
  const more = { ...answer.more, continue_final_message: true };
  leaveOut(chat.turns.slice(chat.turns.indexOf(turn) + 1));
  if (!chat.turns.includes(turn)) chat.turns.push(turn);
  answer.element.classList.add("left");
  const remark = `From here with “${candidate.token.trim()}” instead of “${event.text.trim()}”:`;
  turn.element.append(make("p", { className: "soft" }, remark));
  chat.running = run(turn, { start, before, fault: "", body: makeBody(messages, more), more: answer.more });
}

const textBefore = ({ recording }, event) =>
  recording.events.slice(0, event.number).map(({ text }) => text ?? "").join("");

// One answer

async function run(turn, { fault, body, more, start = "", before = "" }) {
  chat.stopper = new AbortController();
  const answer = openAnswer(turn, { fault, body, more, start, before });
  await receive(answer).catch((error) => explain(answer, error));
  chat.stopper = null;
  closeAnswer(answer);
  await showServerSide(answer).catch(() => {});  // without it the page is as good as before
}

/** Makes both panes ready. New rows and text wait in fragments until they are painted. */
function openAnswer(turn, { fault, body, more, start, before }) {
  const accept = $("framing").value;
  const extra = { accept, "x-trace": "1", ...(fault && { "x-fault": fault }) };
  const element = make("div", { className: "answer streaming" });
  if (start) element.append(before, make("mark", {}, start.slice(before.length)));
  const answer = {
    turn, element, body, more, fault, accept, start, headers: { "content-type": "application/json", ...extra },
    recording: new Recording(), wire: makeWire({ path: URL_PATH, headers: extra, body }),
    settings: more.response_format ? null : { ...known.defaults, ...pick(body, ["temperature", "top_p"]) },
    text: start, remark: "", complete: false, failed: false, shown: 0, shownMs: null,
    rows: new DocumentFragment(), pieces: new DocumentFragment(),
  };
  turn.answers.push(answer);
  turn.element.append(element);
  $("log").scrollTop = $("log").scrollHeight;
  addRequest(answer);
  showWire(answer);
  $("send").textContent = "Stop";
  $("alive").textContent = "";
  say("The answer is being written.");
  paint(answer, -Infinity);
  return answer;
}

const pick = (object, names) =>
  Object.fromEntries(names.filter((name) => name in object).map((name) => [name, object[name]]));

/** Posts the request and takes its events, until the end of the body or an error. */
async function receive(answer) {
  const { recording } = answer, { signal } = chat.stopper;
  const response = await fetch(URL_PATH, {
    method: "POST",
    headers: { ...answer.headers, ...identity() },
    body: JSON.stringify(answer.body),
    signal,
  });
  recording.headMs = recording.elapsedMs();
  recording.requestId = response.headers.get("x-request-id");
  showHead(answer.wire.head, recording, response);
  if (!response.ok) throw await readRefusal(answer, response);
  const waiting = [];
  let over = false, failure = null, wake = () => {};
  const reading = (async () => {
    for await (const event of readEvents(response, answer.accept, recording)) {
      recording.add(event);
      waiting.push(event);
      wake();
    }
  })().catch((error) => { failure = error; }).finally(() => {
    over = true;
    recording.endedMs = recording.elapsedMs();
    wake();
  });
  while (!over || waiting.length) {
    if (!waiting.length) await new Promise((resolve) => { wake = resolve; });
    if (waiting.length) await show(answer, waiting.shift(), waiting.length, signal);
    if (signal.aborted) break;
  }
  await reading;
  if (failure) throw failure;
  signal.throwIfAborted();
  answer.rows.append(makeEnd(recording, "", "the end of the body"));
}

/** Shows one event: in the chat, at the pace that is set, and on the wire. */
async function show(answer, event, behind, signal) {
  const { recording } = answer;
  if (event.text) {
    if (isStepping() && event.logprobs) showStep(answer, event);
    await pass(signal);
    if (signal.aborted) return;
    answer.pieces.append(makeToken(event, answer, answer.shown === 0));
    answer.shown += 1;
    answer.shownMs = behind ? event.atMs : null;
  }
  answer.rows.append(makeRow(event, recording));
  answer.text += event.text ?? "";
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
    else branch(answer, event, candidate);
  };
  const rows = makeCandidates(event.logprobs[0], answer.settings, { chosen: null, pick: choose });
  $("candidates").replaceChildren(...rows);
  stayAtEnd($("log"), () => { $("stepping").hidden = false; });
}

/** Returns the error in an answer that is not a stream, after showing its body. */
async function readRefusal(answer, response) {
  const text = await response.text();
  answer.rows.append(make("pre", {}, text));
  const isJson = response.headers.get("content-type") === "application/json";
  return new ServerError(isJson ? JSON.parse(text).error : { message: text }, response.status);
}

/** Says why an answer has no proper end. */
function explain(answer, error) {
  const end = (text) => answer.rows.append(makeEnd(answer.recording, "", text));
  const stopped = error.name === "AbortError", told = error instanceof ServerError;
  answer.failed = !stopped;
  answer.error = error;
  answer.remark = stopped ? "Stopped." : told ? error.message : `Broken off: ${error.message}`;
  if (stopped) end("stopped: the browser closed the connection, and so the server stops too");
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
  if (!recording.texts.length) $("alive").textContent = waitingFor(recording);
  else if ($("alive").textContent) $("alive").textContent = "";
  requestAnimationFrame(() => paint(answer, due ? nowMs : wireMs));
}

/** Says what has come while the first token has not. */
function waitingFor({ counts, headMs, elapsedMs, startedMs }) {
  const waited = performance.now() - startedMs;
  if (waited < 700) return "";
  const beats = counts.heartbeats ? `, ${plural(counts.heartbeats, "heartbeat")} so far` : "";
  const what = headMs === null ? "the head of the answer" : "the first token";
  return `Waiting for ${what}: ${(waited / 1000).toFixed(1)} s${beats}`;
}

function paintWire(answer) {
  if (chat.shown !== answer) return void answer.wire.rows.append(answer.rows);
  const isFirst = !answer.wire.rows.hasChildNodes() && answer.rows.hasChildNodes();
  stayAtEnd($("tape"), () => answer.wire.rows.append(answer.rows));
  if (isFirst) $("tape").scrollTop = $("tape").scrollHeight;
  showMeasured(answer);
}

function showMeasured({ recording, shownMs }) {
  $("measured").hidden = recording.events.length === 0;
  showState(recording);
  showFigures(recording);
  drawLanes(recording, shownMs);
}

function closeAnswer(answer) {
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
  if (chat.shown === answer) showMetering(answer);
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
async function showServerSide(answer) {
  const { recording } = answer;
  if (recording.requestId) recording.server = (await askTrace(recording)) ?? recording.server;
  if (recording.server) completeRows(recording);
  if (recording.server?.endMs) {
    const frame = answer.wire.rows.querySelector(".end .frame");
    if (frame) frame.textContent = "0";
  }
  const response = recording.id === null ? null : await askUsage(recording.id);
  if (response?.ok) answer.booked = await response.json();
  if (chat.shown !== answer) return;
  showMeasured(answer);
  showBooked(answer);
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

// The whole conversation

export async function startAnew() {
  chat.stopper?.abort();
  await chat.running;
  Object.assign(chat, { turns: [], shown: null });
  for (const turn of document.querySelectorAll(".turn")) turn.remove();
  for (const id of ["requests", "exchange"]) $(id).replaceChildren();
  for (const id of ["metering", "code", "measured", "server-side", "context"]) $(id).hidden = true;
  $("welcome").hidden = false;
  for (const id of ["copied", "state", "wire-count"]) $(id).textContent = "";
  $("message").value = "";
  $("message").focus();
}
