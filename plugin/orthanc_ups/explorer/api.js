// SPDX-License-Identifier: AGPL-3.0-or-later
// Requests to the management API. Addresses are relative: a proxy may put Orthanc below any path.
import { t } from "./languages.js";

export const BASE = new URL("../api/", document.baseURI);
export const ORTHANC = new URL("../../", document.baseURI);

export class ApiError extends Error {
  constructor(status, told) {
    super(told.error || told.Detail || t("The server answered with status {status}", { status }));
    this.status = status;
    this.name = told.status || "";
    this.attribute = told.attribute || null;
  }
}

export class Offline extends Error {}

// A query travels in a header: Orthanc's server does not carry every character of one, and keeps it in its log.
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

const LOT = 1000;

/* Download a CSV in lots, as the server waits for nothing for long; `onProgress` gets a share from 0 to 1.
   It comes by POST, so that an error can still be told in words. */
export async function downloadCsv(query, filename, onProgress = () => {}) {
  const parts = [];
  let total = 1;
  for (let offset = 0; offset < total; offset += LOT) {
    const content = { query: { ...query, offset: String(offset), limit: String(LOT) } };
    const answer = await send("POST", "workitems.csv", { content });
    if (!answer.ok) throw await refusal(answer);
    const text = await answer.text();
    parts.push(offset ? text.slice(text.indexOf("\n") + 1) : `\ufeff${text}`);
    total = Number(answer.headers.get("X-UPS-Total"));
    onProgress(Math.min(1, (offset + LOT) / Math.max(total, 1)));
  }
  save(new Blob(parts, { type: "text/csv" }), filename);
}

export function save(blob, filename) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = filename;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// A part of a path: an AE title or a UID.
export const part = (text) => encodeURIComponent(text);
