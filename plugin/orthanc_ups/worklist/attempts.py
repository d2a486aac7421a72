# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a command would do to the one workitem that it is about; nothing has happened yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from ..core import statuses
from ..core.commands import Create, ReleaseLock, Subscribe, Unsubscribe, WorkitemCommand
from ..core.decide import Circumstances, Decision, decide
from ..core.events import state_report
from ..core.outcome import T
from ..core.statuses import Status, UpsError
from ..core.value_rules import Limits
from ..core.workitem import Subscription, Workitem
from .state import WorklistState
from .workitem_store import StoredWorkitem


@dataclass(frozen=True, slots=True)
class Attempt:
    """A decision, the specific act that goes with it, and what to count once it is written."""

    decision: Decision
    act: tuple[str, Subscription] | None = None
    counted: str | None = None


Step: TypeAlias = Callable[[StoredWorkitem | None], Attempt]
"""Makes an attempt out of what is there, perhaps more than once. Raises UpsError if the command is refused."""


class Attempts:
    """The rules, applied to what the worklist knows."""

    def __init__(self, state: WorklistState) -> None:
        self._state = state
        self._limits = Limits(state.settings.maximum_nesting)

    # --- workitems (PS3.4 CC.2.1, CC.2.2, CC.2.5, CC.2.6) ---

    def decided(self, command: WorkitemCommand) -> Step:
        """Create, Update, Change State, Request Cancellation, or an operator's Close."""

        def attempt(before: StoredWorkitem | None) -> Attempt:
            if isinstance(command, Create):
                self._check_room(command.uid, before)
            else:
                self.present(command.uid, before)
            workitem = before.workitem if before else None
            watched = workitem is not None and bool(self._state.subscriptions.receivers(workitem))
            settings = self._state.settings
            circumstances = Circumstances(
                self._state.now(), settings.worklist_label, watched, self._limits, settings.strict
            )
            return Attempt(decide(workitem, command, circumstances))

        return attempt

    def _check_room(self, uid: str, before: StoredWorkitem | None) -> None:
        if before is not None:
            return
        if self._state.workitems.is_gone(uid):
            raise UpsError(statuses.DUPLICATE_INSTANCE, f"already existed, and was purged: UPS {uid}")
        if self._state.workitems.count() >= self._state.settings.maximum_workitems:
            raise UpsError(statuses.RESOURCE_LIMITATION, "the worklist is full (Ups.MaximumWorkitems)")

    def present(self, uid: str, before: StoredWorkitem | None) -> Workitem:
        """The workitem. Raises UpsError (C307; 404 or 410) if there is none."""
        return self.there(uid, before).workitem

    def there(self, uid: str, value: T | None) -> T:
        """What was found of a workitem. Raises UpsError (C307; 404 or 410) if there is none."""
        if value is None:
            raise UpsError(statuses.GONE if self._state.workitems.is_gone(uid) else statuses.NO_SUCH_WORKITEM)
        return value

    # --- specific subscriptions (PS3.4 CC.2.3) ---

    def subscribed(self, command: Subscribe) -> Step:
        """A State Report goes to the Receiving AE whatever the subscription was before (Table CC.2.3-2)."""
        granted, status = self._granted(command.lock)
        in_words = "a Deletion Lock" if granted is Subscription.LOCK else "no Deletion Lock"

        def attempt(before: StoredWorkitem | None) -> Attempt:
            workitem = self.present(command.uid, before)
            report = state_report(workitem.attributes, command.receiving_ae)
            what = f"subscribed {command.receiving_ae} with {in_words}"
            decision = Decision(workitem, what, status, (report,))
            return Attempt(decision, (command.receiving_ae, granted), "subscriptions_created")

        return attempt

    def _granted(self, lock: bool) -> tuple[Subscription, Status]:
        if lock and not self._state.settings.deletion_locks:
            return Subscription.NO_LOCK, statuses.LOCK_NOT_GRANTED
        return (Subscription.LOCK if lock else Subscription.NO_LOCK), statuses.SUCCESS

    def unsubscribed(self, command: Unsubscribe) -> Step:
        """The AE's global subscription is left as it is."""

        def attempt(before: StoredWorkitem | None) -> Attempt:
            workitem = self.present(command.uid, before)
            if self._state.subscriptions.state(command.receiving_ae, workitem) is Subscription.NONE:
                return Attempt(Decision(workitem, status=statuses.NO_SUCH_SUBSCRIPTION))
            decision = Decision(workitem, f"unsubscribed {command.receiving_ae}")
            return Attempt(decision, (command.receiving_ae, Subscription.NONE), "subscriptions_removed")

        return attempt

    def released(self, command: ReleaseLock) -> Step:
        """A Deletion Lock becomes a plain subscription (PS3.4 CC.2.3.3)."""

        def attempt(before: StoredWorkitem | None) -> Attempt:
            workitem = self.present(command.uid, before)
            if self._state.subscriptions.state(command.receiving_ae, workitem) is not Subscription.LOCK:
                return Attempt(Decision(workitem, status=statuses.NO_SUCH_SUBSCRIPTION))
            decision = Decision(workitem, f"released the Deletion Lock of {command.receiving_ae}")
            return Attempt(decision, (command.receiving_ae, Subscription.NO_LOCK), "locks_released")

        return attempt
