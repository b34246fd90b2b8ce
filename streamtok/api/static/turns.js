// The conversation: what has been asked and answered, and what of it is still sent.

/**
 * The turns of the conversation. One that is `left` out stays to be read, and is not sent any more;
 * of several answers to a question, the last one counts.
 */
export const chat = { turns: [], shown: null, stopper: null, running: Promise.resolve() };

/** Returns the messages of all turns before `turn` that are still sent, and its question. */
export function messagesFor(turn) {
  const before = chat.turns.slice(0, chat.turns.indexOf(turn)).filter(({ left }) => !left);
  const said = before.flatMap(({ question, answers }) => [
    { role: "user", content: question }, { role: "assistant", content: answers.at(-1).text }]);
  return [...said, { role: "user", content: turn.question }];
}

/** Marks turns as no longer sent. */
export function leaveOut(turns) {
  for (const turn of turns) {
    turn.left = true;
    turn.element.classList.add("left");
  }
}
