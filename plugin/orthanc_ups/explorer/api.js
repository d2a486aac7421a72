// SPDX-License-Identifier: AGPL-3.0-or-later
// Requests to the management API. Addresses are relative, because a proxy may serve Orthanc below any path.
import { count, t } from "./languages.js";
import { refusalWords } from "./parts/refusals.js";

export const BASE = new URL("../api/", document.baseURI);
export const ORTHANC = new URL("../../", document.baseURI);

export class ApiError extends Error {
  constructor(status, refusal) {
    super(refusalWords(status, refusal));
    this.status = status;
    this.name = refusal.status || "";
    this.attribute = refusal.attribute || null;
  }
}

export class Offline extends Error {}

// Queries are sent in a header: Orthanc's server does not pass on every character of a URL's query, and logs it.
export async function send(method, path, { content, parameters, signal } = {}) {
  const options = { method, signal, credentials: "same-origin", cache: "no-store", headers: {} };
  if (content !== undefined) {
    options.body = JSON.stringify(content);
    options.headers["Content-Type"] = "application/json";
  }
  if (parameters) options.headers["X-UPS-Query"] = new URLSearchParams(parameters).toString();
  try {
    return await fetch(new URL(path, BASE), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Offline(t("Orthanc cannot be reached"));
  }
}

async function refusal(answer) {
  const text = await answer.text();
  try {
    return new ApiError(answer.status, JSON.parse(text));
  } catch {
    return new ApiError(answer.status, {});
  }
}

async function json(method, path, more) {
  const answer = await send(method, path, more);
  if (!answer.ok) throw await refusal(answer);
  return answer.json();
}

export const get = (path, parameters = {}, signal = undefined) => json("GET", path, { parameters, signal });
export const post = (path, content = {}) => json("POST", path, { content });
export const put = (path, content = {}) => json("PUT", path, { content });
export const remove = (path, parameters = {}) => json("DELETE", path, { parameters });

const LINE_END = 13; // CR occurs only at the end of lines

/* Download a CSV as a stream, which the browser buffers. `onProgress` gets a share from 0 to 1. The request is made here
   and not by a link, so that a refusal can be shown. */
export async function downloadCsv(query, filename, onProgress = () => {}) {
  const answer = await send("POST", "workitems.csv", { content: { query } });
  if (!answer.ok) throw await refusal(answer);
  const expected = Number(answer.headers.get("X-UPS-Lines"));
  let lines = -1; // the first line has the headings
  const counting = new TransformStream({
    transform(chunk, controller) {
      for (let at = chunk.indexOf(LINE_END); at >= 0; at = chunk.indexOf(LINE_END, at + 1)) lines += 1;
      onProgress(Math.min(1, Math.max(0, lines) / Math.max(expected, 1)));
      controller.enqueue(chunk);
    },
  });
  const file = await new Response(answer.body.pipeThrough(counting), { headers: { "Content-Type": "text/csv" } }).blob();
  if (lines < expected) throw new Error(t("Only {lines} of {expected} lines were received: the download was interrupted, or workitems were deleted in the meantime. Try again.", { lines: count(Math.max(0, lines)), expected: count(expected) }));
  save(file, filename);
}

export function save(blob, filename) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = filename;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// Encodes a segment of a path, such as an AE title or a UID.
export const part = (text) => encodeURIComponent(text);
