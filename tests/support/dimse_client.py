# SPDX-License-Identifier: AGPL-3.0-or-later
"""A UPS client over pynetdicom: one association, typed operations, data sets in the inner form."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from pydicom import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import AE, evt
from pynetdicom.pdu import A_ASSOCIATE_RJ
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, Element

VERIFICATION = "1.2.840.10008.1.1"
UPS_CLASSES = (tags.PUSH, tags.WATCH, tags.PULL, tags.EVENT, tags.QUERY)
IMPLICIT = str(ImplicitVRLittleEndian)
EXPLICIT = str(ExplicitVRLittleEndian)
BIG_ENDIAN = str(ExplicitVRBigEndian)
DEFLATED = str(DeflatedExplicitVRLittleEndian)


class NoAssociation(Exception):
    """The association was rejected, aborted or never begun; the text says which."""


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        code: Status (0000,0900); None if the association ended without an answer.
        command: the command set by keyword.
        attributes: the data set, empty if there was none. Numbers of DS and IS are numbers here.
    """

    code: int | None
    command: dict[str, Any] = field(default_factory=dict)
    attributes: DataSet = field(default_factory=dict)

    @property
    def comment(self) -> str:
        """Error Comment (0000,0902)."""
        return str(self.command.get("ErrorComment", ""))

    @property
    def offending(self) -> str | None:
        """Offending Element (0000,0901) as 8 hex digits."""
        answer = self.command.get("OffendingElement")
        return None if answer is None else f"{int(answer):08X}"

    @property
    def uid(self) -> str:
        """Affected SOP Instance UID (0000,1000)."""
        return str(self.command.get("AffectedSOPInstanceUID", ""))


def to_pydicom(dataset: DataSet, charset: str = "ISO_IR 192") -> Dataset:
    """A data set of the inner form as one of pydicom; text is encoded in ``charset`` if ASCII is not enough."""
    result = Dataset.from_json(dict(dataset))  # type: ignore[no-untyped-call, unused-ignore]
    if any(not text.isascii() for text in _texts(dataset)):
        result.SpecificCharacterSet = charset.split("\\") if "\\" in charset else charset
    return result


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict):
        for part in content.values():
            yield from _texts(part)
    elif isinstance(content, list):
        for part in content:
            yield from _texts(part)


def from_pydicom(dataset: Dataset | None) -> DataSet:
    """A data set of pydicom in the inner form, without (0008,0005)."""
    if dataset is None:
        return {}
    result: dict[str, Element] = dataset.to_json_dict()
    return {tag: value for tag, value in result.items() if tag != tags.SPECIFIC_CHARACTER_SET}


class UpsClient:
    """One association with a UPS SCP. Use it with ``with``.

    Raises NoAssociation on entry if it is not let in.
    """

    def __init__(
        self,
        port: int,
        calling: str = "SCU",
        called: str = "ORTHANC",
        *,
        contexts: Sequence[str] = (*UPS_CLASSES, VERIFICATION),
        syntaxes: Sequence[str] = (EXPLICIT, IMPLICIT),
        extended: bytes | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: float = 60.0,
        host: str = "127.0.0.1",
    ) -> None:
        """``extended`` is proposed as SOP Class Extended Negotiation of C-FIND on each of its contexts."""
        self._ae = AE(ae_title=calling)
        for uid in contexts:
            self._ae.add_requested_context(uid, list(syntaxes))
        self._ae.acse_timeout = self._ae.dimse_timeout = self._ae.network_timeout = timeout
        self._address = (host, port)
        self._called = called
        self._extended = extended
        self._tls = tls
        self._commands: list[dict[str, Any]] = []
        self._next_id = 0
        self._rejection: A_ASSOCIATE_RJ | None = None
        self.association: Any = None

    def __enter__(self) -> Self:
        self.association = self._ae.associate(
            *self._address,
            ae_title=self._called,
            ext_neg=[self._negotiation(uid) for uid in (tags.WATCH, tags.PULL, tags.QUERY)]
            if self._extended
            else None,
            evt_handlers=[
                (evt.EVT_CONN_OPEN, _no_delay),
                (evt.EVT_PDU_RECV, self._heard),
                (evt.EVT_DIMSE_RECV, self._received),
            ],
            tls_args=(self._tls, "localhost") if self._tls else None,
        )
        if not self.association.is_established:
            raise NoAssociation(self._how_it_ended())
        self._keep_answers()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self.association.is_established:
            self.association.release()
        self._ae.shutdown()

    def _keep_answers(self) -> None:
        """Keep pynetdicom's reactor from taking answers that come at once away from who waits for them.

        It pauses for the time of each operation, but one last look into the queue may slip through. An SCU only
        waits for messages; the reactor, which does not wait, would serve them as an SCP.
        """
        provider = self.association.dimse
        get_message = provider.get_msg
        provider.get_msg = lambda block=False: get_message(True) if block else (None, None)

    def _negotiation(self, uid: str) -> SOPClassExtendedNegotiation:
        item = SOPClassExtendedNegotiation()
        item.sop_class_uid = uid
        item.service_class_application_information = self._extended
        return item

    def _heard(self, event: evt.Event) -> None:
        if isinstance(event.pdu, A_ASSOCIATE_RJ):
            self._rejection = event.pdu

    def _how_it_ended(self) -> str:
        """Pynetdicom reports an immediate rejection as an abort: it finds the connection closed already."""
        if self._rejection is not None:
            result = self._rejection
            return f"rejected {result.result} {result.source} {result.reason_diagnostic}"
        return "aborted" if self.association.is_aborted else "not established"

    def _received(self, event: evt.Event) -> None:
        self._commands.append({field.keyword: field.value for field in event.message.command_set})

    # --- what was negotiated ---

    @property
    def accepted(self) -> dict[str, str]:
        """Transfer syntax of each accepted abstract syntax."""
        return {
            str(cx.abstract_syntax): str(cx.transfer_syntax[0]) for cx in self.association.accepted_contexts
        }

    @property
    def extended_answer(self) -> dict[str, bytes]:
        """What the SCP answered to SOP Class Extended Negotiation."""
        return {str(uid): answer for uid, answer in self.association.acceptor.sop_class_extended.items()}

    # --- services ---

    def echo(self) -> Answer:
        """C-ECHO."""
        return self._answer(self.association.send_c_echo(msg_id=self._id()))

    def create(
        self,
        attributes: DataSet | Dataset,
        uid: str | None = None,
        *,
        on: str = tags.PUSH,
        as_class: str = tags.PUSH,
    ) -> Answer:
        """N-CREATE."""
        dataset = self._dataset(attributes)
        return self._answer(
            *self.association.send_n_create(dataset, as_class, uid, msg_id=self._id(), meta_uid=on)
        )

    def update(
        self, uid: str, attributes: DataSet, transaction: str | None = None, *, on: str = tags.PULL
    ) -> Answer:
        """N-SET."""
        dataset = self._dataset(attributes)
        if transaction is not None:
            dataset.TransactionUID = transaction
        return self._answer(
            *self.association.send_n_set(dataset, tags.PUSH, uid, msg_id=self._id(), meta_uid=on)
        )

    def get(self, uid: str, attributes: Sequence[str] = (), *, on: str = tags.PULL) -> Answer:
        """N-GET of some attributes, or of all."""
        numbers = [int(tag, 16) for tag in attributes]
        return self._answer(
            *self.association.send_n_get(numbers, tags.PUSH, uid, msg_id=self._id(), meta_uid=on)
        )

    def action(
        self,
        number: int,
        uid: str,
        information: DataSet | Dataset | None,
        *,
        on: str = tags.WATCH,
        as_class: str = tags.PUSH,
    ) -> Answer:
        """N-ACTION of any type."""
        dataset = None if information is None else self._dataset(information)
        return self._answer(
            *self.association.send_n_action(dataset, number, as_class, uid, msg_id=self._id(), meta_uid=on)
        )

    def change_state(self, uid: str, state: str, transaction: str | None, *, on: str = tags.PULL) -> Answer:
        """N-ACTION 1."""
        information = Dataset()
        information.ProcedureStepState = state
        if transaction is not None:
            information.TransactionUID = transaction
        return self.action(1, uid, information, on=on)

    def request_cancel(self, uid: str, information: DataSet | None = None, *, on: str = tags.PUSH) -> Answer:
        """N-ACTION 2."""
        return self.action(2, uid, information, on=on)

    def subscribe(
        self, uid: str, receiving_ae: str, *, lock: bool = False, filter: DataSet | None = None
    ) -> Answer:
        """N-ACTION 3."""
        information = self._dataset(filter or {})
        information.ReceivingAE = receiving_ae
        information.DeletionLock = "TRUE" if lock else "FALSE"
        return self.action(3, uid, information)

    def unsubscribe(self, uid: str, receiving_ae: str) -> Answer:
        """N-ACTION 4."""
        return self.action(4, uid, _for(receiving_ae))

    def suspend(self, uid: str, receiving_ae: str) -> Answer:
        """N-ACTION 5."""
        return self.action(5, uid, _for(receiving_ae))

    def find(
        self, identifier: DataSet | Dataset, *, on: str = tags.PULL, cancel_after: int | None = None
    ) -> list[Answer]:
        """C-FIND: every answer, the last one included. C-CANCEL is sent after the match ``cancel_after``."""
        number = self._id()
        answers: list[Answer] = []
        for status, match in self.association.send_c_find(self._dataset(identifier), on, msg_id=number):
            answers.append(self._answer(status, match))
            if len(answers) == cancel_after:
                self.association.send_c_cancel(number, query_model=on)
        return answers

    def _dataset(self, dataset: DataSet | Dataset) -> Dataset:
        return dataset if isinstance(dataset, Dataset) else to_pydicom(dataset)

    def _id(self) -> int:
        self._commands.clear()
        self._next_id = self._next_id % 0xFFFF + 1
        return self._next_id

    def _answer(self, status: Dataset, dataset: Dataset | None = None) -> Answer:
        code = status.get("Status")
        command = self._commands.pop(0) if self._commands else {}
        return Answer(None if code is None else int(code), command, from_pydicom(dataset))


def _for(receiving_ae: str) -> Dataset:
    information = Dataset()
    information.ReceivingAE = receiving_ae
    return information


def _no_delay(event: Any) -> None:
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
