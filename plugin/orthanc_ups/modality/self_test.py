# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tests if worklist queries on Orthanc's DICOM port reach this plugin: Orthanc asks only the first that registered.

For the official worklists plugin the load order tells; for any other plugin a query of our own does, if Orthanc accepts
it.
"""

from __future__ import annotations

import asyncio
import ssl
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ..core import tags
from ..core.dataset import DataSet, element, text
from ..dimse.association import Association, Gone, Terms, Wire
from ..dimse.data_sets import encode
from ..dimse.message import (
    AFFECTED_CLASS,
    COMMAND_FIELD,
    MESSAGE_ID,
    PRIORITY,
    RESPONSE,
    STATUS,
    CommandField,
    CommandSet,
    MemoryBudget,
    Message,
    PduType,
    ProtocolError,
)
from ..dimse.negotiation import read_answer, request
from ..dimse.tls import TlsError
from ..orthanc.modalities import Modality
from ..settings import OrthancSettings

_FIND_CLASS: Final = "1.2.840.10008.5.1.4.31"
_LIBRARY: Final = "libModalityWorklists"
_WITHIN: Final = 10.0  # seconds
_MAX_PDU: Final = 16_384
_MAX_ANSWER: Final = 64 * 1024
_PENDING: Final = (0xFF00, 0xFF01)
_MARK: Final = "ups-self-test-"
_HOST: Final = "127.0.0.1"
_OWN_HOSTS: Final = frozenset({_HOST, "localhost"})

OTHER_IS_FIRST: Final = (
    "Another plugin answers the worklist queries on Orthanc's DICOM port, so that modalities do not see the workitems: "
    'list the Python plugin before it in "Plugins" of orthanc.json, such as ["…/libOrthancPython.so", '
    '"…/libModalityWorklists.so"]; the folder of the worklists plugin (Worklists.Database) is then served as well'
)


def worklists_plugin_is_loaded() -> bool:
    """True if the official worklists plugin is in this process. While our script loads: if it was loaded before."""
    try:
        return _LIBRARY in Path("/proc/self/maps").read_text(errors="replace")
    except OSError:
        return False


class SelfTest:
    """A worklist query to Orthanc's own DICOM port; used on the loop only."""

    def __init__(
        self,
        orthanc_settings: OrthancSettings,
        own_ae: str,
        modalities: Callable[[], tuple[Modality, ...]],
        tls: Callable[[], ssl.SSLContext],
    ) -> None:
        """``modalities`` returns those of Orthanc; ``tls`` returns the context for a port of Orthanc with TLS."""
        self._orthanc_settings = orthanc_settings
        self._own_ae = own_ae
        self._modalities = modalities
        self._tls = tls
        self._patient = f"{_MARK}{uuid.uuid4().hex}"
        self._has_arrived = False

    def recognizes(self, identifier: DataSet) -> bool:
        """True for our own query; its arrival is noted."""
        is_own = text(identifier, tags.PATIENT_ID) == self._patient
        self._has_arrived |= is_own
        return is_own

    async def is_asked(self) -> bool | None:
        """Send the query. True if it reached this plugin; None if Orthanc does not accept it."""
        calling = self._calling()
        if calling is None or not self._orthanc_settings.dicom_server_enabled:
            return None
        try:
            async with asyncio.timeout(_WITHIN):
                succeeded = await self._queried(calling)
        except (OSError, EOFError, TimeoutError, ProtocolError, Gone, TlsError):
            succeeded = False
        return self._has_arrived or (False if succeeded else None)

    def _calling(self) -> str | None:
        """An AE title from which Orthanc accepts worklist queries of this machine."""
        if self._orthanc_settings.always_allow_find_worklist:
            return self._own_ae
        for modality in self._modalities():
            is_here = not self._orthanc_settings.check_modality_host or modality.host in _OWN_HOSTS
            if modality.allow_find_worklist and is_here:
                return modality.ae_title
        return None

    async def _queried(self, calling: str) -> bool:
        context = self._tls() if self._orthanc_settings.dicom_tls_enabled else None
        wire = await Wire.connect(_HOST, self._orthanc_settings.dicom_port, context)
        try:
            return await self._is_answered(wire, calling)
        finally:
            await wire.close()

    async def _is_answered(self, wire: Wire, calling: str) -> bool:
        called = self._orthanc_settings.dicom_aet
        wire.write(request(calling, called, _FIND_CLASS, _MAX_PDU))
        kind, length = await wire.header()
        body = await wire.body(length, _MAX_ANSWER)
        if kind is not PduType.ASSOCIATE_AC:
            return False
        agreement = read_answer(bytes((kind, 0)) + length.to_bytes(4, "big") + body, _FIND_CLASS)
        if not agreement.contexts:
            return False
        terms = Terms(_MAX_PDU, _MAX_ANSWER, 0.0, _WITHIN, MemoryBudget(_MAX_ANSWER))
        association = Association(wire, agreement, terms, calling, called)
        identifier: DataSet = {tags.PATIENT_ID: element("LO", self._patient)}
        number, agreed = next(iter(agreement.contexts.items()))
        command: CommandSet = {
            AFFECTED_CLASS: _FIND_CLASS,
            COMMAND_FIELD: int(CommandField.C_FIND),
            MESSAGE_ID: 1,
            PRIORITY: 0,
        }
        await association.send(Message(number, command, encode(identifier, agreed.syntax)))
        while True:
            answer = await association.receive()
            association.forget(answer)
            status = answer.number(STATUS)
            if answer.field == CommandField.C_FIND | RESPONSE and status not in _PENDING:
                await association.release(1.0)
                return status == 0
