// SPDX-License-Identifier: AGPL-3.0-or-later
// Export and import of the whole worklist, page by page, as tools.transfer does it.

import { ApiError, BASE, save, send } from "./api.js";

const LINES = 500;
const BYTES = 3_000_000;
const NDJSON = "application/x-ndjson";

async function content(answer) {
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => ({}));
  throw new ApiError(answer.status, body);
}

// `onProgress` gets the number of lines so far; `signal` stops it. Nothing is saved unless it is complete.
export async function exportWorklist(onProgress, signal) {
  const parts = [];
  let after = null;
  let count = 0;
  for (;;) {
    const answer = await content(await send("GET", "export", { parameters: { limit: String(LINES), ...(after ? { after } : {}) }, signal }));
    const lines = (await answer.text()).split("\n").filter(Boolean);
    const last = JSON.parse(lines[lines.length - 1]);
    const isEnd = last.kind === "end";
    parts.push(`${(isEnd ? lines : lines.slice(0, -1)).join("\n")}\n`);
    count += lines.length - (isEnd ? 0 : 1);
    onProgress(count);
    if (isEnd) break;
    after = last.after;
  }
  const day = new Date().toISOString().slice(0, 10);
  save(new Blob(parts, { type: NDJSON }), `worklist-${day}.ndjson`);
  return count;
}

// Yields batches of whole lines.
async function* batches(file) {
  let rest = "";
  let lines = [];
  let size = 0;
  const reader = file.stream().pipeThrough(new TextDecoderStream()).getReader();
  for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
    const received = (rest + chunk.value).split("\n");
    rest = received.pop();
    for (const line of received) {
      if (lines.length && (lines.length >= LINES || size + line.length > BYTES)) {
        yield lines;
        [lines, size] = [[], 0];
      }
      lines.push(line);
      size += line.length;
    }
  }
  if (rest.trim()) lines.push(rest);
  if (lines.length) yield lines;
}

// `onProgress` gets the state of the import (`ImportState`). Resolves with the final state.
export async function importWorklist(file, onProgress, signal) {
  let state = null;
  for await (const lines of batches(file)) {
    const options = { method: "POST", body: `${lines.join("\n")}\n`, credentials: "same-origin", signal, headers: { "Content-Type": NDJSON } };
    const answer = await content(await fetch(new URL("import", BASE), options));
    state = (await answer.json()).import;
    onProgress(state);
  }
  return state;
}
