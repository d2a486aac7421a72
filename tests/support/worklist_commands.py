# SPDX-License-Identifier: AGPL-3.0-or-later
"""Random commands, each with the outcome that PS3.4 prescribes (``worklist_model``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hypothesis import strategies as st

from orthanc_ups.core import tags
from orthanc_ups.core.commands import (
    ChangeState,
    Close,
    Command,
    Create,
    Purge,
    ReleaseLock,
    RequestCancel,
    Subscribe,
    Suspend,
    Unsubscribe,
    Update,
)
from orthanc_ups.core.dataset import DataSet, element
from tests.support.service import FILTERED, GLOBAL, SCHEDULER, TRANSACTION
from tests.support.workitems import minimal, performed, progress, uid
from tests.support.worklist_model import Model

AES: Final = ("A", "B", "C")
NUMBERS: Final = range(1, 6)
_PRIORITY: Final = {True: element("CS", "HIGH"), False: element("CS", "LOW")}
_READINESS: Final = {True: element("CS", "READY"), False: element("CS", "UNAVAILABLE")}

Asked = tuple[Command, Callable[[Model], bool]]
aes = st.sampled_from(AES)
numbers = st.sampled_from(NUMBERS)
flags = st.booleans()


def creation(number: int, urgent: bool) -> Asked:
    """A Create."""
    attributes = minimal(t00741200=_PRIORITY[urgent])
    return Create(SCHEDULER, uid(number), attributes), lambda model: model.create(number, urgent)


def _claim(number: int) -> Asked:
    claim = ChangeState(SCHEDULER, uid(number), "IN PROGRESS", TRANSACTION)
    return claim, lambda model: model.claim(number)


def _close(number: int, completed: bool) -> Asked:
    state = "COMPLETED" if completed else "CANCELED"
    attributes = performed() if completed else {}
    return Close(SCHEDULER, uid(number), state, attributes), lambda model: model.close(number, state)


def _cancel(number: int) -> Asked:
    return RequestCancel(SCHEDULER, uid(number)), lambda model: model.request_cancel(number)


def _readiness(number: int, ready: bool) -> Asked:
    attributes: DataSet = {tags.READINESS: _READINESS[ready]}
    update = Update(SCHEDULER, uid(number), attributes, TRANSACTION)
    return update, lambda model: model.set_readiness(number, ready)


def _progress(number: int, percent: int) -> Asked:
    update = Update(SCHEDULER, uid(number), progress(str(percent)), TRANSACTION)
    return update, lambda model: model.set_progress(number, percent)


def _subscribe(ae: str, number: int, lock: bool) -> Asked:
    command = Subscribe(SCHEDULER, uid(number), ae, lock)
    return command, lambda model: model.subscribe(ae, number, lock)


def _unsubscribe(ae: str, number: int) -> Asked:
    return Unsubscribe(SCHEDULER, uid(number), ae), lambda model: model.unsubscribe(ae, number)


def _release(ae: str, number: int) -> Asked:
    return ReleaseLock(SCHEDULER, uid(number), ae), lambda model: model.release_lock(ae, number)


def _subscribe_all(ae: str, lock: bool) -> Asked:
    return Subscribe(SCHEDULER, GLOBAL, ae, lock), lambda model: model.subscribe_all(ae, lock)


def _subscribe_some(ae: str, urgent: bool, lock: bool) -> Asked:
    command = Subscribe(SCHEDULER, FILTERED, ae, lock, {tags.PRIORITY: _PRIORITY[urgent]})
    return command, lambda model: model.subscribe_some(ae, urgent, lock)


def _end(ae: str, filters: bool, suspend: bool) -> Asked:
    to = FILTERED if filters else GLOBAL
    command = Suspend(SCHEDULER, to, ae) if suspend else Unsubscribe(SCHEDULER, to, ae)
    names = {
        (False, False): "unsubscribe_all",
        (False, True): "suspend_all",
        (True, False): "unsubscribe_some",
        (True, True): "suspend_some",
    }
    return command, lambda model: bool(getattr(model, names[filters, suspend])(ae))


def _purge(number: int) -> Asked:
    return Purge(SCHEDULER, uid(number)), lambda model: model.purge(number)


COMMANDS: Final = st.one_of(
    st.builds(creation, st.integers(1, 12), flags),
    st.builds(_claim, numbers),
    st.builds(_close, numbers, flags),
    st.builds(_cancel, numbers),
    st.builds(_readiness, numbers, flags),
    st.builds(_progress, numbers, st.integers(1, 3)),
    st.builds(_subscribe, aes, numbers, flags),
    st.builds(_unsubscribe, aes, numbers),
    st.builds(_release, aes, numbers),
    st.builds(_purge, numbers),
    st.builds(_subscribe_all, aes, flags),
    st.builds(_subscribe_some, aes, flags, flags),
    st.builds(_end, aes, flags, flags),
)


def number_of(command: Command) -> int:
    """The number of the workitem of a command."""
    return int(command.uid.rpartition(".")[2])
