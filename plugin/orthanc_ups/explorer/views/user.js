// SPDX-License-Identifier: AGPL-3.0-or-later
// The dialog of the current user: name, rights and language.

import { h } from "../dom.js";
import { LANGUAGES, changeLanguage, language, t } from "../languages.js";
import { field, select, infoDialog } from "../parts/dialog.js";
import { facts } from "../parts/words.js";

function mayDo(rights) {
  if (rights.administer) return t("everything, including delete, export and import");
  if (!rights.act) return t("read only");
  return t("act for {titles}", { titles: rights.ae_titles.join(", ") });
}

export function showUser(system) {
  const languages = select(LANGUAGES, language());
  languages.addEventListener("change", () => changeLanguage(languages.value));
  return infoDialog(t("User and language"), [
    facts([
      [t("User"), system.user || t("anonymous (Orthanc requires no login)")],
      [t("Permissions"), mayDo(system.rights)],
      [t("Defined by"), h("span", {}, h("code", {}, "Ups.Users"), " ", t("in orthanc.json"))],
    ]),
    field(t("Language"), languages),
  ]);
}
