// The conversation: questions go out, answers come, and what of them is asked again.

import { closeAnswer, openAnswer, run, show, showServerSide } from "./answer.js";
import { canComeBack } from "./connection.js";
import { $, make } from "./dom.js";
import { isStepping } from "./pace.js";
import { known } from "./server.js";
import { replay, restore, save } from "./store.js";
import { chat, leaveOut, messagesFor } from "./turns.js";
import { makeHead } from "./wire.js";

const CANDIDATES = 5;  // for each token; with more of them, they would be most of the wire
const CANDIDATES_IN_STEPS = 8;

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

/** Sends `question` with all that was said before. `more` is what else the request's body has. */
export async function ask(question, { fault = "", more = {} } = {}) {
  const turn = openTurn(question);
  const answer = openAnswer(turn, { fault, body: makeBody(messagesFor(turn), more), more });
  await run(answer);
  if (answer.text || answer.complete) return;
  // A question without an answer goes back into the field.
  chat.turns.splice(chat.turns.indexOf(turn), 1);
  $("message").value ||= question;
  save();
}

function openTurn(question) {
  const turn = { question, answers: [], left: false, element: make("div", { className: "turn" },
    make("div", { className: "question" }, question)) };
  chat.turns.push(turn);
  $("welcome").hidden = true;
  $("log").append(turn.element);
  return turn;
}

/** Lets an answer go on from one of its tokens with another candidate: a second answer. */
export async function branch(answer, event, candidate) {
  chat.stopper?.abort();
  await chat.running;
  const { turn } = answer, before = answer.start + textBefore(answer, event);
  if (!chat.turns.includes(turn)) chat.turns.push(turn);  // it had failed
  const start = before + candidate.token;
  const messages = [...messagesFor(turn), { role: "assistant", content: start }];
  const more = { ...answer.more, continue_final_message: true };
  leaveOut(chat.turns.slice(chat.turns.indexOf(turn) + 1));
  answer.element.classList.add("left");
  const from = `From here with “${candidate.token.trim()}” instead of “${event.text.trim()}”:`;
  const body = makeBody(messages, more);
  chat.running = run(openAnswer(turn, { start, before, from, fault: "", body, more: answer.more }));
}

const textBefore = ({ recording }, event) =>
  recording.events.slice(0, event.number).map(({ text }) => text ?? "").join("");

/** Shows the conversation that this tab had; an answer that was running goes on. */
export function showAgain() {
  for (const { question, left, answers } of restore()) {
    const turn = openTurn(question);
    if (left) leaveOut([turn]);
    for (const kept of answers) showAnswerAgain(turn, kept);
  }
}

function showAnswerAgain(turn, kept) {
  for (const other of turn.answers) other.element.classList.add("left");
  const answer = openAnswer(turn, kept), { recording } = answer;
  for (const event of replay(recording, kept)) show(answer, event);
  recording.connections.forEach((connection, index) => {
    if (!index) answer.wire.head.append(makeHead(connection));
  });
  if (!answer.recording.events.length) Object.assign(answer, { text: kept.text });
  const { remark, failed, complete, booked } = kept;
  if (!kept.closed && canComeBack(recording)) {
    recording.endedMs = null;
    chat.running = run(answer);
    return;
  }
  Object.assign(answer, { remark: remark || (kept.closed ? "" : "Broken off."), failed, complete, booked });
  closeAnswer(answer);
  showServerSide(answer).catch(() => {});
}

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
  save();
}
