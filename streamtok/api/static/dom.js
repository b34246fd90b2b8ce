// Elements of the page, and text as the page shows it.

// A proxy may show the page under a prefix (--root-path): all paths start where the page is.
export const PREFIX = new URL(".", location).pathname.slice(0, -1);

export const $ = (id) => document.getElementById(id);

/** Returns a new element with properties and children. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Makes spaces and control characters visible. */
export const visible = (text) =>
  text.replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\r", "␍").replaceAll("\t", "⇥");

export const inMs = (value, digits = 1) =>
  Number.isFinite(value) ? `${value.toFixed(digits)} ms` : "–";

export const inPercent = (share) => `${(100 * share).toFixed(1)}%`;

export const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

/** Returns bytes in hexadecimal, with spaces between. */
export const inHex = (bytes) =>
  [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");

/** Returns those properties of an object that it has. */
export const pick = (object, names) =>
  Object.fromEntries(names.filter((name) => name in object).map((name) => [name, object[name]]));

/** Makes a change in a box that scrolls; where its end was in sight, it stays in sight. */
export function stayAtEnd(box, change) {
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 48;
  change();
  if (atEnd) box.scrollTop = box.scrollHeight;
}

/** Tells a screen reader: the whole answer once, not every token. */
export const say = (text) => { $("announcer").textContent = text; };

/** Makes a list one stop of the Tab key, with arrow keys inside it. */
export function rove(container, selector, [back, on]) {
  container.addEventListener("keydown", (event) => {
    const from = event.target.closest(selector);
    const items = [...container.querySelectorAll(selector)], at = items.indexOf(from);
    const steps = { [back]: at - 1, [on]: at + 1, Home: 0, End: items.length - 1 };
    const to = items[steps[event.key]];
    if (!from || !to) return;
    event.preventDefault();
    [from.tabIndex, to.tabIndex] = [-1, 0];
    to.focus();
  });
}
