// SPDX-License-Identifier: AGPL-3.0-or-later
// What was typed and not sent is asked about before it is left behind.

import { h } from "./dom.js";
import { t } from "./languages.js";
import { dialog } from "./parts/dialog.js";

let returning = false;

/* Whether a change of the address is not to be followed, as the view that is shown has unsaved text. The step in the
   browser's history is taken back; if the user leaves all the same, it is made again. */
export async function unsavedText(shown, event) {
  if (returning) {
    returning = false;
    return true;
  }
  if (!shown || !shown.unsaved || !shown.unsaved()) return false;
  returning = true;
  if (history.state) history.forward(); // an entry that was there: the user went back
  else history.back();
  const leave = await dialog({
    title: t("Leave without saving?"),
    content: h("p", {}, t("Your changes have not been saved and will be lost.")),
    confirm: t("Leave"),
    back: t("Stay"),
    danger: true,
  });
  if (!leave) return true;
  shown.unsaved = null;
  location.href = event.newURL;
  return true;
}
