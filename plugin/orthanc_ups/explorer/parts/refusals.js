// SPDX-License-Identifier: AGPL-3.0-or-later
// Refusals in the language of the user: a sentence for each status, followed by the server's own message in English.

import { language, t } from "../languages.js";

const wrongState = () => t("The state of the workitem does not allow this.");
const claimed = () => t("Somebody else has claimed this workitem.");
const invalid = () => t("A value is not valid.");
const missing = () => t("A required value is missing.");
const later = () => t("Not possible right now; try again in a moment.");
const forbidden = () => t("You are not allowed to do this.");
const BY_NAME = {
  MAY_NOT_UPDATE: wrongState,
  WRONG_TRANSACTION_UID: claimed,
  MISSING_TRANSACTION_UID: claimed,
  ALREADY_IN_PROGRESS: claimed,
  ONLY_CREATE_SCHEDULES: wrongState,
  FINAL_STATE_UNMET: () => t("Information required for the final state is missing."),
  NO_SUCH_WORKITEM: () => t("This workitem does not exist."),
  GONE: () => t("The workitem was deleted."),
  UNKNOWN_RECEIVING_AE: () => t("This AE title is unknown."),
  NOT_IN_PROGRESS: () => t("The workitem is not in progress."),
  COMPLETED_ALREADY: () => t("The workitem is already completed."),
  ALREADY_COMPLETED: () => t("The workitem is already completed."),
  ALREADY_CANCELED: () => t("The workitem is already canceled."),
  PERFORMER_UNREACHABLE: () => t("The performer cannot be reached."),
  PERFORMER_REFUSES: () => t("The performer declined to cancel."),
  NO_SUCH_SUBSCRIPTION: () => t("This subscription does not exist."),
  CREATED_MODIFIED: () => t("Created, with corrections."),
  UPDATED_MODIFIED: () => t("Saved, with corrections."),
  LOCK_NOT_GRANTED: () => t("The Deletion Lock was not granted."),
  NO_SUCH_ATTRIBUTE: invalid,
  INVALID_VALUE: invalid,
  INVALID_ARGUMENT: invalid,
  INVALID_INSTANCE: invalid,
  IDENTIFIER_MISMATCH: invalid,
  MISSING_ATTRIBUTE: missing,
  MISSING_VALUE: missing,
  DUPLICATE_INSTANCE: () => t("A workitem with this UID already exists."),
  NOT_AUTHORIZED: forbidden,
  PROCESSING_FAILURE: () => t("Something went wrong on the server."),
  RESOURCE_LIMITATION: later,
  OUT_OF_RESOURCES: later,
  UNREACHABLE: () => t("The remote system cannot be reached."),
  STARTING: () => t("The UPS service is still starting."),
  STANDBY: () => t("This Orthanc is on standby: another one leads the worklist."),
  LEADERLESS: () => t("No Orthanc leads the worklist now."),
  FAILED: () => t("The UPS service cannot start; see Orthanc's log."),
  STOPPING: () => t("The UPS service is shutting down."),
};
const BY_HTTP = {
  400: () => t("The server rejected the request."),
  401: () => t("Please log in again."),
  403: forbidden,
  404: () => t("This does not exist."),
  413: () => t("The request is too large."),
  502: () => t("The remote system cannot be reached."),
  503: later,
};

// `body`: {error, status} of the server. In English its message is shown alone.
export function refusalWords(http, body) {
  const words = body.error || body.Detail;
  const sentence = BY_NAME[body.status] || BY_HTTP[http];
  if (!words) return sentence ? sentence() : t("The server responded with status {status}", { status: http });
  return language() === "en" || !sentence ? words : `${sentence()} (${words})`;
}

// The warning of a successful outcome ({status, warning}), or null.
export function remark(outcome) {
  return outcome.warning ? refusalWords(200, { error: outcome.warning, status: outcome.status }) : null;
}
