// SPDX-License-Identifier: AGPL-3.0-or-later
// What was typed and not sent is asked about before it is left behind.

import { h } from "./dom.js";
import { t } from "./languages.js";
import { dialog } from "./parts/dialog.js";

/* Whether a change of the address has to wait, as the view that is shown has unsaved text. The address is put back; if
   the user leaves all the same, it changes again. */
export async function unsavedText(shown, event) {
  if (!shown || !shown.unsaved || !shown.unsaved()) return false;
  history.pushState(null, "", event.oldURL);
  const leave = await dialog({
    title: t("Leave without saving?"),
    content: h("p", {}, t("What you typed is not saved and would be lost.")),
    confirm: t("Leave"),
    back: t("Stay"),
    danger: true,
  });
  if (!leave) return true;
  shown.unsaved = null;
  location.href = event.newURL;
  return true;
}
