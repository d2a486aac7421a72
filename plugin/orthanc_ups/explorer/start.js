// SPDX-License-Identifier: AGPL-3.0-or-later
// Asks who the user is, chooses the language, and begins. The other modules, which contain texts, are loaded only then.

import { get } from "./api.js";
import { chooseLanguage } from "./languages.js";

const PAUSE = 3000;

// While the service is unavailable, for example on a standby node, the page says why and retries.
async function start() {
  await chooseLanguage();
  const answer = await get("system").then((system) => ({ system }), (error) => ({ error }));
  if (answer.system) await chooseLanguage(answer.system.default_language);
  const { begin } = await import("./app.js");
  await begin(answer);
  if (answer.error && answer.error.status === 503) setTimeout(start, PAUSE);
}

start();
