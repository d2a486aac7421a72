# SPDX-License-Identifier: AGPL-3.0-or-later
"""A DIMSE peer that costs next to nothing: many associations on one asyncio loop, data sets encoded once.

It is for load and measurements. Whether the plugin speaks DICOM is shown by the pynetdicom clients
(``dimse_client.py``, ``event_receiver.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Self

from orthanc_ups.codecs.encoded_values import undeclared
from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.dimse.data_sets import SYNTAXES, Bounds, decode, encode
from orthanc_ups.dimse.message import (
    ACTION_TYPE,
    AFFECTED_CLASS,
    AFFECTED_INSTANCE,
    COMMAND_FIELD,
    MESSAGE_ID,
    PRIORITY,
    REQUESTED_CLASS,
    REQUESTED_INSTANCE,
    RESPONDED_ID,
    RESPONSE,
    STATUS,
    CommandField,
    Message,
    Value,
)
from tests.support import upper_layer
from tests.support.raw_association import Ended, RawAssociation

_PATIENCE = 30.0  # seconds for the answer to an association request
_EXPLICIT = SYNTAXES[upper_layer.EXPLICIT]
_PENDING = (0xFF00, 0xFF01)
CLASSES = (tags.PUSH, tags.WATCH, tags.PULL, tags.EVENT, tags.QUERY)


class Refused(Exception):
    """The association was not accepted, or an answer did not come; the text says how it ended."""


def encoded(dataset: DataSet) -> bytes:
    """A data set for the wire (explicit VR little endian)."""
    return encode(dataset, _EXPLICIT)


def decoded(data: bytes | None) -> DataSet:
    """A data set from the wire."""
    return decode(data, _EXPLICIT, Bounds(), len(data), undeclared("Latin1")) if data else {}


def state_change(state: str, transaction: str) -> bytes:
    """Action information of Change State."""
    return encoded({tags.TRANSACTION_UID: element("UI", transaction), tags.STATE: element("CS", state)})


def subscription(receiving_ae: str, *, lock: bool = False) -> bytes:
    """Action information of Subscribe."""
    deletion_lock = element("LO", "TRUE" if lock else "FALSE")
    return encoded({tags.DELETION_LOCK: deletion_lock, tags.RECEIVING_AE: element("AE", receiving_ae)})


class RawScu:
    """One association as SCU. ``await RawScu.open(…)``; then requests, one after the other."""

    def __init__(self, request: bytes, classes: Sequence[str]) -> None:
        self.association = RawAssociation(request, self._took)
        self._classes = classes
        self._contexts: dict[str, int] = {}
        self._last_id = 0
        self._answers: deque[Message] = deque()
        self._waiting: asyncio.Future[None] | None = None

    @classmethod
    async def open(
        cls,
        port: int,
        calling: str,
        called: str = "ORTHANC",
        classes: Sequence[str] = CLASSES,
        host: str = "127.0.0.1",
    ) -> Self:
        """Associate. Raises Refused, or OSError if nobody listens."""
        made = cls(upper_layer.associate_rq(calling, called, classes), classes)
        association = made.association
        await asyncio.get_running_loop().create_connection(lambda: association, host, port)
        association.ended.add_done_callback(lambda _: made._wake())
        try:
            await asyncio.wait_for(association.established, _PATIENCE)
        except (Ended, TimeoutError) as error:
            association.drop()
            raise Refused(str(error) or "the association request was not answered") from error
        offered = dict(zip(range(1, 256, 2), classes, strict=False))
        made._contexts = {offered[number]: number for number in association.accepted}
        return made

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.association.release()

    def _took(self, _: RawAssociation, message: Message) -> None:
        self._answers.append(message)
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    # --- messages ---

    async def ask(self, on: str, command: Mapping[int, Value], data: bytes | None = None) -> Message:
        """Send a request on the context of a SOP class and wait for its answer. Raises Refused if there is none."""
        try:
            self.association.post(self._request(on, command, data))
        except Ended as error:
            raise Refused(str(error)) from error
        return await self.answer()

    async def answer(self) -> Message:
        """The next message of the peer. Raises Refused if there is none any more."""
        while not self._answers:
            if not self.association.is_open:
                raise Refused(self.association.how)
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        return self._answers.popleft()

    def _request(self, on: str, command: Mapping[int, Value], data: bytes | None) -> Message:
        self._last_id = self._last_id % 0xFFFF + 1
        return Message(self._contexts[on], {**command, MESSAGE_ID: self._last_id}, data)

    async def create(self, uid: str, data: bytes) -> int:
        """N-CREATE; gives the status."""
        command: dict[int, Value] = {
            AFFECTED_CLASS: tags.PUSH,
            COMMAND_FIELD: int(CommandField.N_CREATE),
            AFFECTED_INSTANCE: uid,
        }
        return _status(await self.ask(tags.PUSH, command, data))

    async def set(self, uid: str, data: bytes) -> int:
        """N-SET; the Transaction UID is in the data."""
        return _status(await self.ask(tags.PULL, _named(CommandField.N_SET, uid), data))

    async def get(self, uid: str) -> tuple[int, bytes | None]:
        """N-GET of everything."""
        answer = await self.ask(tags.PULL, _named(CommandField.N_GET, uid))
        return _status(answer), answer.data

    async def action(self, number: int, uid: str, data: bytes, on: str = tags.PULL) -> int:
        """N-ACTION."""
        return _status(await self.ask(on, {**_named(CommandField.N_ACTION, uid), ACTION_TYPE: number}, data))

    async def echo(self) -> int:
        """C-ECHO; the association must have been opened with Verification."""
        command: dict[int, Value] = {
            AFFECTED_CLASS: "1.2.840.10008.1.1",
            COMMAND_FIELD: int(CommandField.C_ECHO),
        }
        return _status(await self.ask("1.2.840.10008.1.1", command))

    async def find(self, identifier: bytes, most: int | None = None) -> tuple[int, int]:
        """C-FIND up to ``most`` matches, the rest is canceled and thrown away; final status and matches."""
        status, found = 0, 0
        async for status, _ in self.matches(identifier, most):
            found += status in _PENDING
        return status, found

    async def matches(
        self, identifier: bytes, most: int | None = None
    ) -> AsyncIterator[tuple[int, bytes | None]]:
        """Status and data set of each answer as it comes; C-CANCEL goes out behind the match ``most``."""
        command: dict[int, Value] = {
            AFFECTED_CLASS: tags.PULL,
            COMMAND_FIELD: int(CommandField.C_FIND),
            PRIORITY: 0,
        }
        answer, number = await self.ask(tags.PULL, command, identifier), 0
        while True:
            status = _status(answer)
            yield status, answer.data
            if status not in _PENDING:
                return
            number += 1
            if number == most:
                self._cancel()
            answer = await self.answer()

    def _cancel(self) -> None:
        command: dict[int, Value] = {COMMAND_FIELD: int(CommandField.C_CANCEL), RESPONDED_ID: self._last_id}
        self.association.post(Message(self._contexts[tags.PULL], command))


def _named(field: CommandField, uid: str) -> dict[int, Value]:
    return {REQUESTED_CLASS: tags.PUSH, COMMAND_FIELD: int(field), REQUESTED_INSTANCE: uid}


def _status(answer: Message) -> int:
    found = answer.number(STATUS)
    if found is None:
        raise Refused(f"the answer {answer.field:04X} has no status")
    return found


class EventListener:
    """A receiver of event reports: accepts every association and answers each report with success.

    ``took`` is called with AE title and message before the answer is sent.
    """

    def __init__(self, ae_title: str, took: Callable[[str, Message], None], port: int = 0) -> None:
        self.ae_title = ae_title
        self.port = port
        self._took = took
        self._server: asyncio.Server | None = None
        self._associations: set[RawAssociation] = set()

    async def start(self) -> None:
        """Listen; ``port`` says where."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connected, "127.0.0.1", self.port, backlog=128)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Go away without a word, as a machine that is switched off."""
        if self._server is not None:
            self._server.close()
        ending = [one.ended for one in self._associations]
        for association in self._associations:
            association.drop()
        await asyncio.gather(*ending)

    def _connected(self) -> RawAssociation:
        association = RawAssociation(None, self._report)
        self._associations.add(association)
        association.ended.add_done_callback(lambda _: self._associations.discard(association))
        return association

    def _report(self, association: RawAssociation, message: Message) -> None:
        self._took(self.ae_title, message)
        command: dict[int, Value] = {
            AFFECTED_CLASS: tags.PUSH,
            COMMAND_FIELD: message.field | RESPONSE,
            RESPONDED_ID: message.number(MESSAGE_ID) or 0,
            STATUS: 0,
        }
        with contextlib.suppress(Ended):
            association.post(Message(message.context, command))


async def together(count: int, work: Callable[[int], Coroutine[None, None, None]]) -> None:
    """Run the same work several times side by side; the first failure ends all."""
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(work(number))
