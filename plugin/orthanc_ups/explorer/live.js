// SPDX-License-Identifier: AGPL-3.0-or-later
// Polls for changes every two seconds: not while the page is hidden, and less often while the server is unreachable.

import { get } from "./api.js";

const USUAL_PAUSE = 2000;
const LONGEST_PAUSE = 15_000;

export class Live {
  // `onChange({uids, complete})` is called after changes, `onState(reachable)` when the server becomes reachable or unreachable.
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
    this.poll();
  }

  wake() {
    if (!document.hidden) this.poll();
  }

  async poll() {
    clearTimeout(this.timer);
    if (document.hidden) return;
    try {
      this.receive(await get("changes", { since: String(this.number) }));
    } catch {
      this.fail();
    }
    this.timer = setTimeout(() => this.poll(), this.pause);
  }

  receive(news) {
    const first = !this.hasAnswer;
    const changed = news.uids.length > 0 || !news.complete;
    this.hasAnswer = true;
    this.number = news.number;
    this.pause = USUAL_PAUSE;
    this.showReachable(true);
    if (changed && !first) this.onChange(news);
  }

  fail() {
    this.pause = Math.min(this.pause * 2, LONGEST_PAUSE);
    this.showReachable(false);
  }

  showReachable(reachable) {
    if (this.reachable === reachable) return;
    const back = this.reachable === false && reachable;
    this.reachable = reachable;
    this.onState(reachable);
    if (back) this.onChange({ uids: [], complete: false });
  }
}
