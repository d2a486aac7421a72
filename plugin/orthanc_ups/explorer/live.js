// SPDX-License-Identifier: AGPL-3.0-or-later
// Asks every two seconds what changed. A hidden page asks nothing; an unreachable server is asked less often.

import { get } from "./api.js";

const USUAL_PAUSE = 2000;
const LONGEST_PAUSE = 15_000;

export class Live {
  // `onChange({uids, complete})` when something changed, `onState(true | false)` when the server comes and goes.
  constructor(onChange, onState) {
    this.onChange = onChange;
    this.onState = onState;
    this.number = 0;
    this.hasAnswer = false;
    this.reachable = null;
    this.pause = USUAL_PAUSE;
    this.timer = 0;
    document.addEventListener("visibilitychange", () => this.wake());
  }

  start() {
    this.ask();
  }

  wake() {
    if (!document.hidden) this.ask();
  }

  async ask() {
    clearTimeout(this.timer);
    if (document.hidden) return;
    try {
      this.take(await get("changes", { since: String(this.number) }));
    } catch {
      this.miss();
    }
    this.timer = setTimeout(() => this.ask(), this.pause);
  }

  take(news) {
    const first = !this.hasAnswer;
    const changed = news.uids.length > 0 || !news.complete;
    this.hasAnswer = true;
    this.number = news.number;
    this.pause = USUAL_PAUSE;
    this.tell(true);
    if (changed && !first) this.onChange(news);
  }

  miss() {
    this.pause = Math.min(this.pause * 2, LONGEST_PAUSE);
    this.tell(false);
  }

  tell(reachable) {
    if (this.reachable === reachable) return;
    const back = this.reachable === false && reachable;
    this.reachable = reachable;
    this.onState(reachable);
    if (back) this.onChange({ uids: [], complete: false });
  }
}
