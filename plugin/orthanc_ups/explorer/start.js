// SPDX-License-Identifier: AGPL-3.0-or-later
// Asks who we are, chooses the language, and begins. Only then the other modules are read, as they hold texts.

import { get } from "./api.js";
import { chooseLanguage } from "./languages.js";

async function start() {
  const answer = await get("system").then((system) => ({ system }), (error) => ({ error }));
  await chooseLanguage(answer.system && answer.system.default_language);
  const { begin } = await import("./app.js");
  await begin(answer);
}

start();
