// The same request elsewhere: as a command, as a program, as bytes.

import { makeBody } from "./chat.js";
import { URL_PATH } from "./connection.js";
import { $, pick, PREFIX } from "./dom.js";
import { known } from "./server.js";
import { chat } from "./turns.js";

const inShell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** Returns JSON as Python: the same but for two names, which may also stand in strings. */
const inPython = (value) => JSON.stringify(value, null, 4)
  .replace(/"(?:[^"\\]|\\.)*"|true|false/g, (at) => ({ true: "True", false: "False" })[at] ?? at);

/** Returns the headers that the request needs beside its type, `key` standing for the key. */
function moreHeaders(key) {
  const accept = chat.shown?.accept ?? $("framing").value;  // the first is what clients get anyway
  return Object.entries({
    ...(accept !== "text/event-stream" && { accept }),
    ...pick(chat.shown?.headers ?? {}, ["x-fault", "x-resumable"]),
    ...($("key").value && { authorization: `Bearer ${key}` }),
  });
}

/** Whether OpenAI's client reads the answer. */
const isForOpenAI = () => !moreHeaders("").some(([name]) => name === "accept");

const LANGUAGES = {
  curl: (body) => {
    const headers = moreHeaders("$KEY").map(([name, value]) => ` \\\n  -H "${name}: ${value}"`).join("");
    return `curl -N --raw -i ${location.origin}${URL_PATH} \\
  -H 'content-type: application/json'${headers} \\
  -d ${inShell(JSON.stringify(body))}`;
  },

  python: (body) => (isForOpenAI() ? withOpenAI(body) : withUrllib(body)),

  javascript: (body) => {
    const headers = Object.fromEntries([["content-type", "application/json"], ...moreHeaders("YOUR KEY")]);
    return `// Save as stream.mjs and run with node.
const response = await fetch("${location.origin}${URL_PATH}", {
  method: "POST",
  headers: ${JSON.stringify(headers)},
  body: JSON.stringify(${JSON.stringify(body, null, 2).replaceAll("\n", "\n  ")}),
});
const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
for (let piece; !(piece = await reader.read()).done; ) console.log(piece.value);`;
  },

  raw: (body) => {
    const headers = moreHeaders("YOUR KEY").map(([name, value]) => `\n  '${name}: ${value}' \\`).join("");
    const json = JSON.stringify(body);
    return `{ printf '%s\\r\\n' \\
  'POST ${URL_PATH} HTTP/1.1' \\
  'host: ${location.host}' \\
  'content-type: application/json' \\${headers}
  'content-length: ${new TextEncoder().encode(json).length}' \\
  'connection: close' ''
  printf '%s' ${inShell(json)}
} | nc ${location.hostname.replace(/[[\]]/g, "")} ${location.port || 80}`;
  },
};

const OPENAI_KNOWS = ["model", "messages", "stream", "stream_options", "temperature", "top_p", "seed",
  "max_tokens", "logprobs", "top_logprobs", "response_format"];

function withOpenAI(body) {
  const headers = Object.fromEntries(moreHeaders("").filter(([name]) => name.startsWith("x-")));
  const own = Object.entries(body).filter(([name]) => OPENAI_KNOWS.includes(name));
  const more = Object.fromEntries(Object.entries(body).filter(([name]) => !OPENAI_KNOWS.includes(name)));
  if (Object.keys(more).length) own.push(["extra_body", more]);
  if (Object.keys(headers).length) own.push(["extra_headers", headers]);
  return `from openai import OpenAI

client = OpenAI(base_url="${location.origin}${PREFIX}/v1", api_key="${$("key").value ? "YOUR KEY" : "none"}")
stream = client.chat.completions.create(
${own.map(([name, value]) => `    ${name}=${inPython(value).replaceAll("\n", "\n    ")},`).join("\n")}
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)`;
}

/** Returns Python for the framings that OpenAI's client does not read. */
function withUrllib(body) {
  const headers = Object.fromEntries([["content-type", "application/json"], ...moreHeaders("YOUR KEY")]);
  return `import json
from urllib.request import Request, urlopen

body = ${inPython(body)}
headers = ${inPython(headers)}
url = "${location.origin}${URL_PATH}"
with urlopen(Request(url, json.dumps(body).encode(), headers)) as response:
    while piece := response.read1():
        print(piece.decode(), end="", flush=True)`;
}

/** Shows the request whose wire is shown as code, or the one that would be sent now; copies it. */
export async function copyAs(language) {
  const question = $("message").value.trim() || "Tell me a story about a fox and a lantern.";
  const named = known.model ? { model: known.model } : {};
  const body = { ...named, ...(chat.shown?.body ?? makeBody([{ role: "user", content: question }])) };
  $("code").textContent = LANGUAGES[language](body);
  $("code").hidden = false;
  try {
    await navigator.clipboard.writeText($("code").textContent);
    $("copied").textContent = "Copied.";
  } catch {  // only a secure context may write to the clipboard
    getSelection().selectAllChildren($("code"));
    $("copied").textContent = "Selected; copy it by hand.";
  }
}
