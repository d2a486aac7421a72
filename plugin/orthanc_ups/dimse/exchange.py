# SPDX-License-Identifier: AGPL-3.0-or-later
"""One request and its answers (PS3.7 §9.3, §10.3, Annex C)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, Protocol

from ..codecs.corrections import Corrections
from ..core import tags
from ..core.commands import Requester
from ..core.dataset import DataSet
from ..core.outcome import Outcome
from ..core.statuses import Status, UpsError
from .data_sets import Codec
from .message import (
    ACTION_TYPE,
    AFFECTED_CLASS,
    AFFECTED_INSTANCE,
    ATTRIBUTE_LIST,
    COMMAND_FIELD,
    ERROR_COMMENT,
    ERROR_ID,
    EVENT_TYPE,
    MESSAGE_ID,
    OFFENDING_ELEMENT,
    REQUESTED_CLASS,
    REQUESTED_INSTANCE,
    RESPONDED_ID,
    RESPONSE,
    STATUS,
    CommandField,
    Message,
    Value,
)
from .negotiation import UPS_CLASSES, Context

_ABOUT_ATTRIBUTES: Final = frozenset({0x0105, 0x0106, 0x0107, 0x0116, 0x0120, 0x0121, 0xC309})
"""Statuses that come with an Attribute Identifier List (PS3.7 §C.5), and that of a wrong state at creation."""


class Requesting(Protocol):
    """The association that a request came by, as far as it is needed to answer."""

    calling: str
    called: str

    @property
    def address(self) -> str:
        """IP address of the requester."""
        ...

    @property
    def contexts(self) -> Mapping[int, Context]:
        """The accepted presentation contexts by their IDs."""
        ...

    def is_canceled(self, message: Message) -> bool:
        """True if C-CANCEL came for a request."""
        ...

    async def send(self, *messages: Message) -> None:
        """Send answers. Raises Gone, or OSError, if the requester has left."""
        ...


class Exchange:
    """A request on its association, with what its answers have in common.

    Attributes:
        message: the request.
        context: its presentation context.
    """

    def __init__(self, association: Requesting, message: Message, codec: Codec) -> None:
        self.message = message
        self.context: Context = association.contexts[message.context]
        self._association = association
        self._codec = codec

    @property
    def calling(self) -> str:
        """AE title of the requester."""
        return self._association.calling

    @property
    def address(self) -> str:
        """IP address of the requester."""
        return self._association.address

    @property
    def called(self) -> str:
        """AE title that the requester called."""
        return self._association.called

    @property
    def requester(self) -> Requester:
        """The requester, in the form that commands take."""
        return Requester(self._association.calling, "DIMSE")

    @property
    def field(self) -> int:
        """Command Field (0000,0100) of the request."""
        return self.message.field

    @property
    def sop_class(self) -> str:
        """Affected or Requested SOP Class UID."""
        return self.message.text(AFFECTED_CLASS) or self.message.text(REQUESTED_CLASS)

    @property
    def instance(self) -> str:
        """Affected or Requested SOP Instance UID, empty if there is none."""
        return self.message.text(REQUESTED_INSTANCE) or self.message.text(AFFECTED_INSTANCE)

    @property
    def is_canceled(self) -> bool:
        """True if C-CANCEL came for this request."""
        return self._association.is_canceled(self.message)

    async def data_set(self) -> DataSet:
        """The data set of the request, empty if there is none. Raises UpsError if it is broken or too large."""
        return await self._decoded(None)

    async def corrected_data_set(self) -> tuple[DataSet, tuple[str, ...]]:
        """The data set, leniently read, and one sentence per correction, for a request whose answer can report them."""
        corrections = self._codec.corrections()
        dataset = await self._decoded(corrections)
        return dataset, corrections.sentences

    async def _decoded(self, corrections: Corrections | None) -> DataSet:
        if self.message.oversized:
            raise self._codec.too_large()
        if self.message.data is None:
            return {}
        return await self._codec.decoded(self.message.data, self.context.syntax, corrections)

    # --- answers ---

    async def send(self, *messages: Message) -> None:
        """Send answers that are made already."""
        await self._association.send(*messages)

    async def answer(
        self, status: Status, instance: str = "", attributes: DataSet | None = None, comment: str = ""
    ) -> None:
        """Send the only answer to a DIMSE-N request or a C-ECHO."""
        command = self._head(status.code, instance or self.instance)
        if comment and status.code:
            command[ERROR_COMMENT] = shortened(comment)
        await self._association.send(self._message(command, attributes))

    async def refuse(self, error: UpsError) -> None:
        """Send a failure, with every attribute at fault (PS3.7 Annex C).

        Offending Element has the attributes themselves, Attribute Identifier List those of the workitem that hold
        them.
        """
        command = self._head(error.status.code, self.instance)
        command[ERROR_COMMENT] = comment_of(error)
        if error.status.error_id:
            command[ERROR_ID] = error.status.error_id
        paths = [fault.path.split(".") for fault in error.faults]
        if paths:
            command[OFFENDING_ELEMENT] = tuple(dict.fromkeys(path[-1] for path in paths))
            if error.status.code in _ABOUT_ATTRIBUTES:
                command[ATTRIBUTE_LIST] = tuple(dict.fromkeys(path[0] for path in paths))
        await self._association.send(self._message(command, None))

    async def send_matches(self, code: int, identifiers: Iterable[DataSet]) -> None:
        """Send some matches of C-FIND and wait until the peer has taken them; other associations get a turn."""
        command = self._head(code, "")
        await self._association.send(*(self._message(command, identifier) for identifier in identifiers))

    async def end_of_matches(self, code: int) -> None:
        """Send the final answer to C-FIND."""
        await self._association.send(self._message(self._head(code, ""), None))

    def _head(self, code: int, instance: str) -> dict[int, Value]:
        message = self.message
        command: dict[int, Value] = {
            AFFECTED_CLASS: self._answered_class(),
            COMMAND_FIELD: message.field | RESPONSE,
            RESPONDED_ID: message.number(MESSAGE_ID) or 0,
            STATUS: code,
        }
        if instance and message.field >= CommandField.N_EVENT_REPORT:
            command[AFFECTED_INSTANCE] = instance
        for element in (ACTION_TYPE, EVENT_TYPE):
            number = message.number(element)
            if number is not None:
                command[element] = number
        return command

    def _answered_class(self) -> str:
        """UPS Push in every DIMSE-N message about a UPS; C-FIND and C-ECHO repeat the class of the request."""
        if self.message.field >= CommandField.N_EVENT_REPORT and self.sop_class in UPS_CLASSES:
            return tags.PUSH
        return self.sop_class or self.context.abstract

    def _message(self, command: dict[int, Value], attributes: DataSet | None) -> Message:
        data = self._codec.encoded(attributes, self.context.syntax) if attributes else None
        return Message(self.message.context, command, data)


# --- Error Comment (0000,0902): 64 characters of ASCII, so tags come before words (PS3.7 Annex C) ---

_LONGEST: Final = 64
_SPELLED_TAG: Final = re.compile(r"(?:, (?=\())? ?\(([0-9A-F]{4},[0-9A-F]{4})\)")


def comment_of(error: UpsError) -> str:
    """What is wrong: as many tags of the attributes at fault as fit, then the first reason."""
    if not error.faults:
        return shortened(error.detail)
    if error.faults[0].comment:
        return shortened(error.faults[0].comment)
    paths = list(dict.fromkeys(fault.path for fault in error.faults))
    return shortened(f"{_spelled(paths)} {_SPELLED_TAG.sub('', error.faults[0].reason).strip()}")


def comment_on(outcome: Outcome) -> str:
    """What was corrected, in the same form; without corrections, the meaning of the status."""
    if not outcome.details:
        return shortened(outcome.status.meaning)
    sentences = "; ".join(outcome.details)
    tags = list(dict.fromkeys(tag.replace(",", "") for tag in _SPELLED_TAG.findall(sentences)))
    return shortened(f"{_spelled(tags)} {_SPELLED_TAG.sub('', sentences).strip()}".strip())


def _spelled(paths: list[str]) -> str:
    """``(0074,1204) (0040,4018)>(0008,0102),(0008,0104)``: neighbours in one sequence share it."""
    text, shared = "", None
    for path in paths:
        above, _, tag = path.rpartition(".")
        if shared is not None and above == shared and above:
            text += f",{_tag(tag)}"
        else:
            text += f" {'>'.join(map(_tag, path.split('.')))}"
        shared = above
    return text.strip()


def _tag(tag: str) -> str:
    return f"({tag[:4]},{tag[4:]})"


def shortened(comment: str) -> str:
    """A text cut to the 64 characters of Error Comment, between words where that loses little."""
    plain = comment.replace("\\", "/").replace("…", "...").encode("ascii", errors="replace").decode("ascii")
    if len(plain) <= _LONGEST:
        return plain
    cut = plain[: _LONGEST - 2]
    words = cut.rpartition(" ")[0]
    return (words if len(words) > _LONGEST // 2 else cut) + ".."
