// SPDX-License-Identifier: AGPL-3.0-or-later
// The rights of the user (Ups.Users). The server enforces them, whatever the page shows.
import { t } from "./languages.js";

const NOT_NAMED = t("Ups.Users does not allow you to do this");

export const mayAct = (system) => system.rights.act;
export const mayAdminister = (system) => system.rights.administer;

const folded = (ae) => ae.trim().toLowerCase();

export function mayActFor(system, ae) {
  return mayAdminister(system) || system.rights.ae_titles.some((title) => folded(title) === folded(ae));
}

// Why a button is disabled, or null.
export const why = (allowed) => (allowed ? null : NOT_NAMED);
