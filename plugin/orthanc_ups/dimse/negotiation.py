# SPDX-License-Identifier: AGPL-3.0-or-later
"""Association negotiation in both roles (PS3.8 §9.3.2-4, PS3.7 Annex D), with pynetdicom's PDUs.

Presentation contexts, SCP/SCU Role Selection, and SOP Class Extended Negotiation of C-FIND (PS3.4 §K.5).
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_items import PDU_ITEM_TYPES
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    AsynchronousOperationsWindowNegotiation,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
    SOPClassExtendedNegotiation,
)
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor

from ..core import tags
from ..core.mechanisms import Mechanisms
from .data_sets import SYNTAXES, Syntax
from .message import AbortReason, ProtocolError, Rejection

for _name in ("pynetdicom.utils", "pynetdicom.pdu_primitives", "pynetdicom.presentation"):
    # They log errors, some with a traceback, for what peers send; the plugin logs each once, in one line.
    logging.getLogger(_name).setLevel(logging.CRITICAL)

VERIFICATION: Final = "1.2.840.10008.1.1"
UPS_CLASSES: Final = frozenset({tags.PUSH, tags.WATCH, tags.PULL, tags.EVENT, tags.QUERY})
FIND_CLASSES: Final = frozenset({tags.WATCH, tags.PULL, tags.QUERY})

_APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"
_IMPLEMENTATION: Final = "2.25.257011185410791464977511985142888699434"
_VERSION: Final = "ORTHANC_UPS_1"
_MIN_PDU: Final = (
    128  # bytes of a PDU; real peers take thousands, tiny ones make data sets many times as long
)
_ACCEPTED: Final = 0
_USER_INFORMATION: Final = 0x50
_FIXED: Final = 2  # bytes at the beginning that are always 1
_MAX_SUB_FIELDS: Final = 7
_CONVERSION: Final = 4  # byte of Enhanced Multi-Frame Image Conversion, which concerns images only
_SUB_FIELDS: Final[Mapping[int, Mechanisms]] = MappingProxyType(
    {2: Mechanisms.FUZZY, 5: Mechanisms.EMPTY, 6: Mechanisms.MULTIPLE}
)
"""The byte of each mechanism (PS3.4 Tables C.5-1 and K.5-1; K.5 defines nothing beyond the fourth byte)."""

_RESULTS: Final[Mapping[int, str]] = MappingProxyType(
    {
        1: "rejected by the user",
        2: "rejected without a reason",
        3: "abstract syntax not supported",
        4: "transfer syntaxes not supported",
    }
)


@dataclass(frozen=True, slots=True)
class Context:
    """An accepted presentation context.

    Attributes:
        abstract: UID of the SOP class.
        syntax: the transfer syntax.
        mechanisms: the extended matching mechanisms that were negotiated for C-FIND and filters.
    """

    abstract: str
    syntax: Syntax
    mechanisms: Mechanisms = Mechanisms.NONE


@dataclass(frozen=True, slots=True)
class Request:
    """An A-ASSOCIATE-RQ; AE titles without padding. ``rejection``: why it cannot be accepted, if so."""

    calling: str
    called: str
    primitive: A_ASSOCIATE
    rejection: Rejection | None = None


@dataclass(frozen=True, slots=True)
class Agreement:
    """What was negotiated.

    Attributes:
        contexts: accepted presentation contexts by ID.
        max_pdu: greatest P-DATA-TF that the peer accepts, in bytes after its header; 0 for any.
        refused: why the peer did not accept the only proposed context.
    """

    contexts: Mapping[int, Context]
    max_pdu: int
    refused: str | None = None

    def context_for(self, abstract: str) -> int | None:
        """ID of a context with this SOP class, or None."""
        return next(
            (number for number, context in self.contexts.items() if context.abstract == abstract), None
        )


# --- as acceptor ---


def read_request(pdu: bytes) -> Request:
    """Parse an A-ASSOCIATE-RQ with its header.

    Raises:
        ProtocolError: it cannot be parsed.
    """
    try:
        request = A_ASSOCIATE_RQ()  # type: ignore[no-untyped-call, unused-ignore]
        request.decode(_without_unsupported(pdu, 68))
        primitive = request.to_primitive()
        calling, called = (
            (primitive.calling_ae_title or "").strip(),
            (primitive.called_ae_title or "").strip(),
        )
    except Exception as error:  # a broken PDU makes pynetdicom raise almost anything
        raise ProtocolError(
            f"broken A-ASSOCIATE-RQ: {type(error).__name__}", AbortReason.INVALID_VALUE
        ) from error
    return Request(calling, called, primitive, _unacceptable(request.protocol_version, primitive))


def _unacceptable(version: int, primitive: A_ASSOCIATE) -> Rejection | None:
    if not version & 1:
        return Rejection(1, 2, 2, f"protocol version {version:04X} is not supported")
    if primitive.application_context_name != _APPLICATION_CONTEXT:
        return Rejection(1, 1, 2, "application context name is not that of DICOM")
    objection = objection_to(_max_pdu_of(primitive))
    return Rejection(1, 2, 1, objection) if objection else None


def objection_to(max_pdu: int) -> str | None:
    """Why a peer with this maximum PDU length cannot be served, or None if it can."""
    if max_pdu == 0 or max_pdu >= _MIN_PDU:
        return None
    return f"maximum length of a PDU is {max_pdu} bytes, expected at least {_MIN_PDU}, or 0"


def _without_unsupported(pdu: bytes, start: int) -> bytes:
    """The PDU without items that pynetdicom does not support: a receiver shall ignore them (PS3.8 §9.3.1)."""
    items = [item for kind, item in _items(pdu[start + 6 :]) if kind in PDU_ITEM_TYPES]
    head = pdu[6 : start + 6]
    return pdu[:2] + struct.pack(">L", len(head) + sum(map(len, items))) + head + b"".join(items)


def _items(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset < len(encoded):
        kind, length = struct.unpack_from(">BxH", encoded, offset)
        item = encoded[offset : offset + 4 + length]
        if kind == _USER_INFORMATION:
            sub_items = b"".join(sub_item for inner, sub_item in _items(item[4:]) if inner in PDU_ITEM_TYPES)
            item = struct.pack(">BxH", kind, len(sub_items)) + sub_items
        yield kind, item
        offset += 4 + length


def accept(request: Request, max_pdu: int, further: Iterable[str] = ()) -> tuple[Agreement, bytes]:
    """Accept a request. Returns what was negotiated, and the A-ASSOCIATE-AC.

    Args:
        request: the association request.
        max_pdu: the greatest P-DATA-TF that the plugin accepts, in bytes after its header.
        further: UIDs of SOP classes in addition to those of UPS.
    """
    primitive = request.primitive
    roles = {
        item.sop_class_uid: (item.scu_role, item.scp_role)
        for item in primitive.user_information
        if isinstance(item, SCP_SCU_RoleSelectionNegotiation) and item.sop_class_uid
    }
    offered = primitive.presentation_context_definition_list
    results, answered_roles = negotiate_as_acceptor(offered, _supported(further), roles)
    extended = _extended_answers(
        primitive, {str(cx.abstract_syntax) for cx in results if cx.result == _ACCEPTED}
    )
    answer = _associate(request.calling, request.called, max_pdu)
    answer.result = _ACCEPTED
    answer.result_source = 1
    answer.presentation_context_definition_results_list = results
    answer.user_information += [*answered_roles, *extended.values(), *_window(primitive)]
    return _agreed(results, primitive, extended), bytes(A_ASSOCIATE_AC(answer).encode())


def _supported(further: Iterable[str]) -> list[PresentationContext]:
    classes = (*sorted(UPS_CLASSES), VERIFICATION, *further)
    return [_context(uid, scu_role=True, scp_role=False) for uid in classes]


def _context(
    abstract: str, scu_role: bool | None = None, scp_role: bool | None = None
) -> PresentationContext:
    context = PresentationContext()
    context.abstract_syntax = UID(abstract)
    context.transfer_syntax = [UID(uid) for uid in SYNTAXES]
    context.scu_role, context.scp_role = scu_role, scp_role
    return context


def _extended_answers(primitive: A_ASSOCIATE, accepted: set[str]) -> dict[str, SOPClassExtendedNegotiation]:
    """PS3.4 §K.5: the first two bytes are fixed, the others are granted as proposed.

    Bytes 5 to 7 are those of the Query/Retrieve classes (PS3.4 C.5.1.1): empty and multiple value matching are granted.
    """
    answers: dict[str, SOPClassExtendedNegotiation] = {}
    for item in primitive.user_information:
        if isinstance(item, SOPClassExtendedNegotiation) and item.sop_class_uid in FIND_CLASSES & accepted:
            proposed = item.service_class_application_information or b""
            answer = SOPClassExtendedNegotiation()
            answer.sop_class_uid = item.sop_class_uid
            answer.service_class_application_information = _granted(proposed)
            answers[str(item.sop_class_uid)] = answer
    return answers


def _granted(proposed: bytes) -> bytes:
    size = min(max(len(proposed), 1), _MAX_SUB_FIELDS)
    granted = bytearray(b"\1" * _FIXED + proposed[_FIXED:])
    granted[_CONVERSION : _CONVERSION + 1] = b"\0" * len(granted[_CONVERSION : _CONVERSION + 1])
    return bytes(granted[:size])


def _negotiated(granted: bytes) -> Mechanisms:
    mechanisms = Mechanisms.NONE
    for index, mechanism in _SUB_FIELDS.items():
        if granted[index : index + 1] == b"\1":
            mechanisms |= mechanism
    return mechanisms


def _window(primitive: A_ASSOCIATE) -> list[AsynchronousOperationsWindowNegotiation]:
    """One operation at a time, whatever was proposed (PS3.7 §D.3.3.3)."""
    if not any(
        isinstance(item, AsynchronousOperationsWindowNegotiation) for item in primitive.user_information
    ):
        return []
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = 1
    window.maximum_number_operations_performed = 1
    return [window]


def _agreed(
    results: list[PresentationContext],
    peer: A_ASSOCIATE,
    extended: Mapping[str, SOPClassExtendedNegotiation],
) -> Agreement:
    contexts = {}
    for context in results:
        if context.result == _ACCEPTED and context.context_id is not None and context.transfer_syntax:
            answer = extended.get(str(context.abstract_syntax))
            bits = answer.service_class_application_information if answer else None
            syntax = SYNTAXES[str(context.transfer_syntax[0])]
            contexts[context.context_id] = Context(
                str(context.abstract_syntax), syntax, _negotiated(bits or b"")
            )
    return Agreement(contexts, _max_pdu_of(peer))


def _max_pdu_of(peer: A_ASSOCIATE) -> int:
    lengths = [
        item.maximum_length_received
        for item in peer.user_information
        if isinstance(item, MaximumLengthNotification)
    ]
    return int(lengths[0] or 0) if lengths else 0


def _associate(calling: str, called: str, max_pdu: int) -> A_ASSOCIATE:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = UID(_APPLICATION_CONTEXT)
    primitive.calling_ae_title, primitive.called_ae_title = calling, called
    length = MaximumLengthNotification()
    length.maximum_length_received = max_pdu
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = UID(_IMPLEMENTATION)
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = _VERSION
    primitive.user_information = [length, implementation, version]
    return primitive


# --- as requestor ---


def request(calling: str, called: str, abstract: str, max_pdu: int, *, as_scp: bool = False) -> bytes:
    """An A-ASSOCIATE-RQ for one SOP class; ``as_scp`` proposes the SCP role for the plugin (PS3.7 §D.3.3.4)."""
    context = _context(abstract)
    context.context_id = 1
    primitive = _associate(calling, called, max_pdu)
    primitive.presentation_context_definition_list = [context]
    if as_scp:
        role = SCP_SCU_RoleSelectionNegotiation()
        role.sop_class_uid = UID(abstract)
        role.scu_role, role.scp_role = False, True
        primitive.user_information.append(role)
    return bytes(A_ASSOCIATE_RQ(primitive).encode())


def read_answer(pdu: bytes, abstract: str, *, as_scp: bool = False) -> Agreement:
    """Parse an A-ASSOCIATE-AC with its header, the answer to ``request`` with the same arguments.

    A peer that explicitly refuses the SCP role has not accepted the context; one that omits role selection is
    assumed to accept it (PS3.7 §D.3.3.4).

    Raises:
        ProtocolError: it cannot be parsed.
    """
    try:
        answer = A_ASSOCIATE_AC()  # type: ignore[no-untyped-call, unused-ignore]
        answer.decode(_without_unsupported(pdu, 68))
        primitive = answer.to_primitive()
        results = primitive.presentation_context_definition_results_list
        contexts = {
            context.context_id: Context(abstract, SYNTAXES[str(context.transfer_syntax[0])])
            for context in results
            if context.result == _ACCEPTED and context.context_id == 1
        }
        words = next(
            (_RESULTS.get(context.result, "rejected") for context in results if context.result), None
        )
        if as_scp and _refuses_scp_role(primitive, abstract):
            contexts, words = {}, words or "the SCP role was refused"
        return Agreement(contexts, _max_pdu_of(primitive), words)
    except Exception as error:  # a broken PDU makes pynetdicom raise almost anything
        raise ProtocolError(
            f"broken A-ASSOCIATE-AC: {type(error).__name__}", AbortReason.INVALID_VALUE
        ) from error


def _refuses_scp_role(answer: A_ASSOCIATE, abstract: str) -> bool:
    return any(
        isinstance(item, SCP_SCU_RoleSelectionNegotiation)
        and item.sop_class_uid == abstract
        and item.scp_role is False
        for item in answer.user_information
    )
