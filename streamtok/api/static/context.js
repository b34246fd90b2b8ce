// A conversation that fills the model's context: where that happens it is said, and what can be done.

import { $, make, plural, stayAtEnd } from "./dom.js";
import { countTokens, known } from "./server.js";
import { chat, leaveOut, messagesFor } from "./turns.js";

/** Says how much of the context is taken, and where the next message would not fit. */
export function noticeContext({ recording, error, turn }) {
  const { context } = known, total = recording.usage?.total_tokens;
  if (context && total) {
    $("context").hidden = false;
    $("context-name").textContent = `context: ${total} of ${context}`;
    $("context-bar").value = total / context;
  }
  const isRefused = error?.code === "context_length_exceeded";
  if (!isRefused && !(context && total >= context)) return;
  const drop = make("button", { type: "button" }, isRefused ? "Leave out the oldest turns, and ask again"
    : "Leave out the oldest turns");
  const anew = make("button", { type: "button" }, "New chat");
  const said = isRefused ? "This conversation no longer fits" : "This conversation fills";
  const notice = make("div", { className: "notice", role: "alert" }, make("p", {},
    `${said} the model’s context${context ? ` of ${context} tokens` : ""}.`), drop, anew);
  drop.addEventListener("click", async () => {
    drop.disabled = true;
    const dropped = await dropOldest(isRefused ? turn.question : "");
    notice.replaceChildren(make("p", {}, dropped));
    if (isRefused && !dropped.startsWith("The message alone")) {
      $("message").value = turn.question;
      $("composer").requestSubmit();
    }
  });
  anew.addEventListener("click", () => $("new-chat").click());
  turn.element.append(notice);
  stayAtEnd($("log"), () => {});
  notice.scrollIntoView({ block: "nearest" });
}

/** Leaves out the oldest turns until there is room for an answer to `question`; says what it did. */
async function dropOldest(question) {
  const { context } = known, room = Math.min(256, Math.floor(context / 4));
  const kept = chat.turns.filter(({ left }) => !left);
  const dropped = [];
  for (;;) {
    const last = { question, answers: [], left: false };
    chat.turns.push(last);
    const messages = messagesFor(last);
    chat.turns.pop();
    const count = await countTokens(messages);
    if (count === null || count + room <= context) break;
    if (!kept.length) {
      return count >= context
        ? `The message alone has ${count} tokens; the model’s context is ${context}.` : told(dropped);
    }
    dropped.push(kept.shift());
    leaveOut(dropped.slice(-1));
  }
  return told(dropped);
}

const told = (dropped) => `${plural(dropped.length, "turn")} left out, which the model no longer sees.`;
