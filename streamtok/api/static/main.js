// Buttons and keys.

import { leadToKey, showWire } from "./answer.js";
import { ask, branch, showAgain, startAnew } from "./chat.js";
import { copyAs } from "./code.js";
import { $, PREFIX, rove } from "./dom.js";
import { makeFaults } from "./faults.js";
import { drawLanes } from "./lanes.js";
import { changePace, isStepping, step } from "./pace.js";
import { askServer, known, send } from "./server.js";
import { save } from "./store.js";
import { hideTip, openToken, showTip } from "./tokens.js";
import { chat } from "./turns.js";

const STORY = "Tell me a story about a fox and a lantern.";
const ANIMAL = {  // what the fourth suggestion asks for
  type: "object",
  properties: {
    animal: { enum: ["fox", "owl", "bear", "mouse"] },
    colour: { enum: ["red", "grey", "white", "brown"] },
    age: { type: "integer", minimum: 1, maximum: 20 },
    friends: { type: "array", items: { enum: ["owl", "hare", "badger", "wren"] }, maxItems: 3 },
  },
  required: ["animal", "colour", "age", "friends"],
  additionalProperties: false,
};
const SUGGESTIONS = {
  story: [STORY],
  chunks: ["What is chunked transfer encoding?"],
  broken: [STORY, { fault: "chunk-cut;at=12" }],
  json: ["Describe an animal as JSON.", { more: { response_format: {
    type: "json_schema", json_schema: { name: "animal", schema: ANIMAL } } } }],
};

const start = (question, options) => { chat.running = ask(question, options); };

// Asking, and stopping

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = $("message").value.trim();
  if (!question || chat.stopper) return;
  $("message").value = "";
  start(question);
});
$("send").addEventListener("click", (event) => {
  if (!chat.stopper) return;  // then it submits the form
  event.preventDefault();
  chat.stopper.abort();
});
$("message").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!chat.stopper) $("composer").requestSubmit();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.defaultPrevented) return;
  hideTip();
  if (!$("token").matches(":popover-open")) chat.stopper?.abort();
});
$("welcome").addEventListener("click", ({ target }) => {
  const suggestion = target.closest("[data-suggestion]");
  if (suggestion && !chat.stopper) start(...SUGGESTIONS[suggestion.dataset.suggestion]);
});
$("new-chat").addEventListener("click", startAnew);

// The pace

$("pace").addEventListener("input", changePace);
$("next").addEventListener("click", step);
document.addEventListener("keydown", (event) => {
  const isWriting = event.target.matches?.("textarea, input, select") && event.target.value;
  if (event.key !== "ArrowRight" || !isStepping() || !chat.stopper || isWriting) return;
  event.preventDefault();
  step();
});

// The key

async function learn() {
  const knows = await askServer();
  $("model").textContent = known.model ?? "of this server";
  makeFaults(known.faults, (fault) => {
    if (chat.stopper) return;
    start(chat.turns.at(-1)?.question ?? STORY, { fault });
  });
  for (const item of document.querySelectorAll("[data-needs=faults]")) item.disabled = !known.faults;
  $("broken-needs").hidden = known.faults;
  return knows;
}
$("key").value = sessionStorage.getItem("key") ?? "";
$("key").addEventListener("change", () => {
  sessionStorage.setItem("key", $("key").value);
  $("key").removeAttribute("aria-invalid");
  learn();
});
// A field that is refused must be seen to be mended.
$("settings").addEventListener("invalid", () => { $("settings").open = true; }, true);

// Tokens

const tokenAt = ({ target }) => (target.matches?.(".token") ? target : null);
for (const kind of ["pointerover", "focusin"]) {
  $("log").addEventListener(kind, (event) => (tokenAt(event) ? showTip(event.target) : hideTip()));
}
for (const kind of ["pointerleave", "focusout", "scroll"]) $("log").addEventListener(kind, hideTip);
$("log").addEventListener("click", (event) => {
  if (tokenAt(event)) openToken(event.target, branch);
});
$("log").addEventListener("keydown", (event) => {
  if (!tokenAt(event) || (event.key !== "Enter" && event.key !== " ")) return;
  event.preventDefault();
  openToken(event.target, branch);
});
document.addEventListener("branch", ({ detail }) => branch(...detail));
rove($("log"), ".token", ["ArrowLeft", "ArrowRight"]);

// The wire

async function showUsage() {
  const response = await send($("usage").textContent.replace(`GET ${PREFIX}`, ""));
  const body = JSON.stringify(await response.json(), null, 2);
  $("usage-answer").textContent = `${response.status} ${response.statusText}\n${body}`;
  $("usage-answer").scrollIntoView({ block: "nearest" });
}
$("usage").addEventListener("click", showUsage);
for (const button of document.querySelectorAll("[data-language]")) {
  button.addEventListener("click", () => copyAs(button.dataset.language));
}
rove($("tape"), ".row > summary", ["ArrowUp", "ArrowDown"]);

/** On a phone there is room for one pane: this one. */
function showPane(name) {
  document.body.dataset.pane = name;
  for (const tab of document.querySelectorAll("[data-to]")) tab.ariaPressed = String(tab.dataset.to === name);
  if (chat.shown) drawLanes(chat.shown.recording, chat.shown.shownMs);  // it may have had no width
}
for (const tab of document.querySelectorAll("[data-to]")) {
  tab.addEventListener("click", () => showPane(tab.dataset.to));
}
document.addEventListener("show-wire", ({ detail: answer }) => {
  showWire(answer);
  showPane("wire");
});
addEventListener("resize", () => { if (chat.shown) drawLanes(chat.shown.recording, chat.shown.shownMs); });

// A page that is left may be loaded again, and a phone may end one that is out of sight.
addEventListener("pagehide", save);
document.addEventListener("visibilitychange", () => { if (document.hidden) save(); });

showPane("chat");
changePace();
const isKnown = await learn();
showAgain();
if (!isKnown && !$("key").value) leadToKey();
