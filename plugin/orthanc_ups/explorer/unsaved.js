// SPDX-License-Identifier: AGPL-3.0-or-later
// Asks before unsaved input is discarded.

import { h } from "./dom.js";
import { t } from "./languages.js";
import { dialog } from "./parts/dialog.js";

let returning = false;

/* Resolves with true if a change of the address must not be followed because the current view has unsaved input. The
   change is undone in the browser's history; if the user confirms that they want to leave, it is made again. */
export async function leavingIsPrevented(view, event) {
  if (returning) {
    returning = false;
    return true;
  }
  if (!view || !view.unsaved || !view.unsaved()) return false;
  returning = true;
  if (history.state) history.forward(); // a visited entry: the user went back
  else history.back();
  const leave = await dialog({
    title: t("Leave without saving?"),
    content: h("p", {}, t("Your changes have not been saved and will be lost.")),
    confirm: t("Leave"),
    back: t("Stay"),
    danger: true,
  });
  if (!leave) return true;
  view.unsaved = null;
  location.href = event.newURL;
  return true;
}
