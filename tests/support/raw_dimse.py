# SPDX-License-Identifier: AGPL-3.0-or-later
"""A DIMSE peer that costs next to nothing: many associations on one asyncio loop, data sets encoded once.

It stands on the plugin's own transport, so it measures and loads the plugin; what the plugin says is right is shown by
the pynetdicom clients (``dimse_client.py``, ``event_receiver.py``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.wires import dimse_pdu
from orthanc_ups.wires.dimse_association import Association, Gone, Terms, Wire
from orthanc_ups.wires.dimse_charset import undeclared
from orthanc_ups.wires.dimse_decode import Bounds, decode
from orthanc_ups.wires.dimse_encode import encode
from orthanc_ups.wires.dimse_message import (
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
    Field,
    Message,
    Value,
)
from orthanc_ups.wires.dimse_negotiation import Agreement, Context
from orthanc_ups.wires.dimse_pdu import Kind
from orthanc_ups.wires.dimse_syntax import SYNTAXES
from tests.support import upper_layer

_TERMS = Terms(most_pdu=131_072, most_data=64 * 1024 * 1024, idle=0.0, pace=60.0)
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
    return decode(data, _EXPLICIT, Bounds(32), len(data), undeclared("Latin1")) if data else {}


def state_change(state: str, transaction: str) -> bytes:
    """Action information of Change State."""
    return encoded({tags.TRANSACTION_UID: element("UI", transaction), tags.STATE: element("CS", state)})


def subscription(receiving_ae: str, *, lock: bool = False) -> bytes:
    """Action information of Subscribe."""
    deletion_lock = element("LO", "TRUE" if lock else "FALSE")
    return encoded({tags.DELETION_LOCK: deletion_lock, tags.RECEIVING_AE: element("AE", receiving_ae)})


class RawScu:
    """One association as SCU. ``await RawScu.open(…)``; then requests, one after the other."""

    def __init__(self, association: Association) -> None:
        self.association = association
        self._last_id = 0
        self._contexts = {one.abstract: number for number, one in association.agreement.contexts.items()}

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
        wire = Wire(*await asyncio.open_connection(host, port))
        try:
            wire.write(upper_layer.associate_rq(calling, called, classes))
            async with asyncio.timeout(30):
                kind, length = await wire.header()
                body = await wire.body(length, 2**20)
        except (EOFError, TimeoutError, dimse_pdu.ProtocolError) as error:
            wire.drop()
            raise Refused(f"association request not answered: {error!r}") from error
        if kind is not Kind.ASSOCIATE_AC:
            wire.drop()
            raise Refused(f"{kind.name} {body.hex()}")
        accepted, most = upper_layer.read_ac(body)
        return cls(Association(wire, _agreed(accepted, classes, most), _TERMS, calling, called))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.association.release(1.0)

    # --- messages ---

    async def ask(self, on: str, command: Mapping[int, Value], data: bytes | None = None) -> Message:
        """Send a request on the context of a SOP class and wait for its answer. Raises Refused if there is none."""
        try:
            await self.association.send(self._request(on, command, data))
            return await self.association.receive()
        except Gone as error:
            raise Refused(str(error)) from error

    def _request(self, on: str, command: Mapping[int, Value], data: bytes | None) -> Message:
        self._last_id = self._last_id % 0xFFFF + 1
        return Message(self._contexts[on], {**command, MESSAGE_ID: self._last_id}, data)

    async def create(self, uid: str, data: bytes) -> int:
        """N-CREATE; gives the status."""
        command: dict[int, Value] = {
            AFFECTED_CLASS: tags.PUSH,
            COMMAND_FIELD: int(Field.N_CREATE),
            AFFECTED_INSTANCE: uid,
        }
        return _status(await self.ask(tags.PUSH, command, data))

    async def set(self, uid: str, data: bytes) -> int:
        """N-SET; the Transaction UID is in the data."""
        return _status(await self.ask(tags.PULL, _named(Field.N_SET, uid), data))

    async def get(self, uid: str) -> tuple[int, bytes | None]:
        """N-GET of everything."""
        answer = await self.ask(tags.PULL, _named(Field.N_GET, uid))
        return _status(answer), answer.data

    async def action(self, number: int, uid: str, data: bytes, on: str = tags.PULL) -> int:
        """N-ACTION."""
        return _status(await self.ask(on, {**_named(Field.N_ACTION, uid), ACTION_TYPE: number}, data))

    async def echo(self) -> int:
        """C-ECHO; the association must have been opened with Verification."""
        command: dict[int, Value] = {AFFECTED_CLASS: "1.2.840.10008.1.1", COMMAND_FIELD: int(Field.C_ECHO)}
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
        command: dict[int, Value] = {AFFECTED_CLASS: tags.PULL, COMMAND_FIELD: int(Field.C_FIND), PRIORITY: 0}
        answer, number = await self.ask(tags.PULL, command, identifier), 0
        while True:
            status = _status(answer)
            yield status, answer.data
            if status not in _PENDING:
                return
            number += 1
            if number == most:
                self._cancel()
            answer = await self.association.receive()

    def _cancel(self) -> None:
        command: dict[int, Value] = {COMMAND_FIELD: int(Field.C_CANCEL), RESPONDED_ID: self._last_id}
        self.association.post(Message(self._contexts[tags.PULL], command))


def _named(field: Field, uid: str) -> dict[int, Value]:
    return {REQUESTED_CLASS: tags.PUSH, COMMAND_FIELD: int(field), REQUESTED_INSTANCE: uid}


def _status(answer: Message) -> int:
    found = answer.number(STATUS)
    if found is None:
        raise Refused(f"the answer {answer.field:04X} has no status")
    return found


def _agreed(accepted: Mapping[int, str], classes: Sequence[str], most: int) -> Agreement:
    offered = dict(zip(range(1, 256, 2), classes, strict=False))
    contexts = {number: Context(offered[number], SYNTAXES[syntax]) for number, syntax in accepted.items()}
    return Agreement(contexts, most)


class EventListener:
    """A receiver of event reports: accepts every association and answers each report with success.

    ``took`` is called with AE title and message before the answer is sent.
    """

    def __init__(self, ae_title: str, took: Callable[[str, Message], None], port: int = 0) -> None:
        self.ae_title = ae_title
        self.port = port
        self._took = took
        self._server: asyncio.Server | None = None
        self._associations: set[Association] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen; ``port`` says where."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, backlog=128)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Go away without a word, as a machine that is switched off."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(
            *self._tasks, *(one.abort() for one in self._associations), return_exceptions=True
        )
        self._associations.clear()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(Wire(reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, wire: Wire) -> None:
        try:
            association = await self._let_in(wire)
        except (EOFError, OSError, dimse_pdu.ProtocolError):
            wire.drop()
            return
        self._associations.add(association)
        async for message in association.messages():
            self._took(self.ae_title, message)
            await self._answer(association, message)
        self._associations.discard(association)
        await association.close()

    async def _let_in(self, wire: Wire) -> Association:
        _, length = await wire.header()
        asked = upper_layer.read_rq(await wire.body(length, 2**20))
        accepted = {number: upper_layer.EXPLICIT for number, one in asked.contexts.items() if _usable(one)}
        contexts = {number: Context(asked.contexts[number].abstract, _EXPLICIT) for number in accepted}
        wire.write(upper_layer.associate_ac(asked, accepted))
        return Association(wire, Agreement(contexts, asked.most), _TERMS, asked.calling, asked.called)

    async def _answer(self, association: Association, message: Message) -> None:
        command: dict[int, Value] = {
            AFFECTED_CLASS: tags.PUSH,
            COMMAND_FIELD: message.field | RESPONSE,
            RESPONDED_ID: message.number(MESSAGE_ID) or 0,
            STATUS: 0,
        }
        try:
            await association.send(Message(message.context, command))
        except Gone:
            return


def _usable(one: upper_layer.Proposed) -> bool:
    return upper_layer.EXPLICIT in one.syntaxes


async def together(count: int, work: Callable[[int], Awaitable[None]]) -> None:
    """Run the same work several times side by side; the first failure ends all."""
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(_as_task(work(number)))


async def _as_task(work: Awaitable[None]) -> None:
    await work
