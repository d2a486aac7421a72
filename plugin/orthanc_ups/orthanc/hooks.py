# SPDX-License-Identifier: AGPL-3.0-or-later
"""Callbacks of Orthanc: for every instance that arrives, and for every change.

Register while the script loads:
``RegisterReceivedInstanceCallback(guard.received)``, ``RegisterIncomingCStoreInstanceFilter(guard.c_store)``,
``RegisterOnChangeCallback(forwarder)``.
"""

from __future__ import annotations

import logging
import struct
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .dicom_file import (
    MEDIA_STORAGE_SOP_CLASS,
    PATIENT_ID,
    SOP_CLASS,
    SOP_INSTANCE,
    Identity,
    Search,
    identify,
)
from .sdk import ChangeCallback, DicomInstance, Orthanc, ReceivedCallback, StoreFilter, WorklistCallback

_log = logging.getLogger("orthanc_ups.hooks")

# Unified Procedure Step: Push, Watch, Pull, Event and Query, and the retired trial form (PS3.6 Annex A).
# Neighbouring UIDs (34.7 to 34.10 and more) are storage classes of radiotherapy.
_UPS_CLASSES: Final = ("1.2.840.10008.5.1.4.34.6.", "1.2.840.10008.5.1.4.34.4.")
_SOP_CLASS_NOT_SUPPORTED: Final = 0x0122
_SUCCESS: Final = 0x0000
_RAW_DATA: Final = "1.2.840.10008.5.1.4.1.1.66"
_EXPLICIT_VR: Final = "1.2.840.10008.1.2.1"

_UPS_AND_NEIGHBOURS: Final = "1.2.840.10008.5.1.4.34."
_SEARCHED_AS_A_WHOLE: Final = 1024 * 1024  # bytes; of a larger file only the beginning is read
_DEFLATED: Final = "1.2.840.10008.1.2.1.99"  # a search of the raw bytes would miss what such a file contains

_IS_UPS: Final = "a Unified Procedure Step can only be changed through the worklist's services"

# Orthanc cannot refuse an instance here: one that it discards counts as stored for STOW and C-STORE. So the instance
# is replaced by something that is not a DICOM file, and the sender gets an error: 400, or a failed SOP by STOW.
_NOT_DICOM: Final = b"A worklist can only be changed through its services, not by an upload."


@dataclass(frozen=True, slots=True)
class OwnInstances:
    """The instances in which the plugin stores the worklist, and which no client may upload.

    Attributes:
        patient_id: Patient ID of all of them, which no other instance may have.
        uid_prefix: prefix of their SOP Instance UIDs.
        has_uid: whether a SOP Instance UID belongs to one of them.
        is_announced: whether the plugin itself is uploading this SOP Instance UID now; valid once per announcement.
        has_orthanc_id: whether an Orthanc identifier belongs to one of them, or to their series, study or patient.
    """

    patient_id: str
    uid_prefix: str
    has_uid: Callable[[str], bool]
    is_announced: Callable[[str], bool]
    has_orthanc_id: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class SiteCallbacks:
    """Callbacks of a site's own script, of the kinds that Orthanc has only once. Their exceptions reach Orthanc.

    Attributes:
        on_change: called for each change, after the plugin's callback.
        received_instance: decides about each instance that the plugin does not refuse.
        c_store_filter: decides about each C-STORE that the plugin does not refuse.
        worklist: adds answers to each worklist query, after the plugin's.
    """

    on_change: ChangeCallback | None = None
    received_instance: ReceivedCallback | None = None
    c_store_filter: StoreFilter | None = None
    worklist: WorklistCallback | None = None


_NO_CALLBACKS: Final = SiteCallbacks()


def _substitute() -> bytes:
    """A new instance, in place of a refused one: to a duplicate, Orthanc would answer 0000 without the filter."""
    uid = f"2.25.{uuid.uuid4().int}"
    meta = (
        _element(2, 2, b"UI", _RAW_DATA) + _element(2, 3, b"UI", uid) + _element(2, 16, b"UI", _EXPLICIT_VR)
    )
    data_set = (
        _element(0x0008, 0x0016, b"UI", _RAW_DATA),
        _element(0x0008, 0x0018, b"UI", uid),
        _element(0x0010, 0x0020, b"LO", "refused"),
        _element(0x0020, 0x000D, b"UI", f"{uid}.1"),
        _element(0x0020, 0x000E, b"UI", f"{uid}.2"),
    )
    group_length = struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(meta))
    return b"".join((bytes(128), b"DICM", group_length, meta, *data_set))


def _element(group: int, number: int, vr: bytes, text: str) -> bytes:
    value = text.encode() + b"\0" * (len(text) % 2)
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


class UploadGuard:
    """Refuses uploads of UPS instances, and of instances that would mix with the plugin's own.

    The sender is notified of a refusal: 0122 for C-STORE, 400 for REST, the Failed SOP Sequence (0110) for STOW; a file
    in a ZIP archive is skipped. Anything else is left to the site's callbacks or accepted unchanged, even if this guard
    fails.

    Attributes:
        refusals: the number of refused uploads.
    """

    def __init__(self, orthanc: Orthanc, own: OwnInstances, site: SiteCallbacks = _NO_CALLBACKS) -> None:
        self._origins = orthanc.InstanceOrigin
        self._actions = orthanc.ReceivedInstanceAction
        self._own = own
        self._site = site
        self._search = Search(
            {
                SOP_CLASS: _UPS_CLASSES,
                MEDIA_STORAGE_SOP_CLASS: _UPS_CLASSES,
                SOP_INSTANCE: (own.uid_prefix,),
                PATIENT_ID: (own.patient_id,),
            }
        )
        self._words = tuple(map(str.encode, (_UPS_AND_NEIGHBOURS, _DEFLATED, own.uid_prefix, own.patient_id)))
        self._refused_on: set[int] = set()
        self.refusals = 0

    def received(self, dicom: bytes, origin: int) -> tuple[int, bytes | None]:
        """Called for each instance that arrives in any way, on the thread of its sender."""
        self._refused_on.discard(threading.get_ident())
        verdict = self._verdict(dicom, origin)
        if verdict is not None:
            return verdict
        if self._site.received_instance is None:
            return self._actions.KEEP_AS_IS, None
        action, modified = answer = self._site.received_instance(dicom, origin)
        if action == self._actions.MODIFY and modified is not None:
            return self._verdict(modified, origin) or answer
        return answer

    def _verdict(self, dicom: bytes, origin: int) -> tuple[int, bytes | None] | None:
        """What to do with an instance that is refused or the plugin's own; None for any other."""
        try:
            return self._judged(dicom, origin)
        except Exception:
            _log.exception("Cannot examine an arriving instance; accepting it")
            return None

    def _is_harmless(self, dicom: bytes) -> bool:
        """True if it contains nothing that could be refused, as almost all images. It is then not parsed."""
        return len(dicom) <= _SEARCHED_AS_A_WHOLE and not any(word in dicom for word in self._words)

    def _judged(self, dicom: bytes, origin: int) -> tuple[int, bytes | None] | None:
        if self._is_harmless(dicom):
            return None
        identity = identify(dicom)
        if identity is not None and self._own.is_announced(identity.sop_instance):
            return self._actions.KEEP_AS_IS, None
        reason = self._objection_to_odd(dicom) if identity is None else self._objection(identity)
        if reason is None:
            return None
        self.refusals += 1
        name = identity.sop_instance if identity else "a file whose elements are not in order"
        _log.warning("Refused an upload of %s: %s", name, reason)
        if origin == self._origins.DICOM_PROTOCOL:
            self._refused_on.add(threading.get_ident())
            return self._actions.MODIFY, _substitute()  # c_store refuses it, with a status
        return self._actions.MODIFY, _NOT_DICOM

    def _objection(self, identity: Identity) -> str | None:
        if identity.sop_class.startswith(_UPS_CLASSES) or identity.media_class.startswith(_UPS_CLASSES):
            return _IS_UPS
        is_own = self._own.has_uid(identity.sop_instance) or identity.patient_id == self._own.patient_id
        return self._is_own if is_own else None

    @property
    def _is_own(self) -> str:
        return f'the patient "{self._own.patient_id}" holds the worklist'

    def _objection_to_odd(self, dicom: bytes) -> str | None:
        tags = self._search.matches(dicom)
        if tags & {SOP_CLASS, MEDIA_STORAGE_SOP_CLASS}:
            return _IS_UPS
        return self._is_own if tags else None

    def c_store(self, instance: DicomInstance) -> int:
        """Called for each C-STORE after ``received``, on the same thread. Returns the DIMSE status."""
        thread = threading.get_ident()
        if thread in self._refused_on:
            self._refused_on.discard(thread)
            return _SOP_CLASS_NOT_SUPPORTED
        return _SUCCESS if self._site.c_store_filter is None else self._site.c_store_filter(instance)


class _Once:
    """Schedules a call on the loop, unless one is already scheduled."""

    def __init__(self, soon: Callable[[Callable[[], None]], object], function: Callable[[], None]) -> None:
        self._soon, self._function, self._waiting = soon, function, False

    def __call__(self) -> None:
        if not self._waiting:
            self._waiting = True
            self._soon(self._run)

    def _run(self) -> None:
        self._waiting = False
        self._function()


class ChangeForwarder:
    """Forwards the few changes that the plugin needs. Orthanc calls it on a thread of its own, after the change."""

    def __init__(
        self,
        orthanc: Orthanc,
        own: OwnInstances,
        soon: Callable[[Callable[[], None]], object],
        *,
        shelves_deleted: Callable[[], None],
        modalities_changed: Callable[[], None],
        started: Callable[[], None],
        stopped: Callable[[], None],
        rules: ChangeCallback | None = None,
        site: SiteCallbacks = _NO_CALLBACKS,
    ) -> None:
        """Prepare.

        Args:
            orthanc: the module.
            own: the instances of the plugin.
            soon: runs a function on the loop, from any thread, and never raises (``LoopThread.call_soon``).
            shelves_deleted: called on the loop after deletions of the plugin's instances, once for several.
            modalities_changed: called on the loop when ``DicomModalities`` were changed at run time.
            started: called on Orthanc's thread; may block for a moment.
            stopped: called on Orthanc's thread; must not return before the plugin's threads have ended.
            rules: called for every change, before the site's callback; must be quick.
            site: its ``on_change`` is called for every change, last.
        """
        self._own = own
        self._rules = rules
        self._site = site
        changes = orthanc.ChangeType
        self._deleted = changes.DELETED
        self._shelves_deleted = _Once(soon, shelves_deleted)
        self._others: dict[int, Callable[[], None]] = {
            changes.UPDATED_MODALITIES: _Once(soon, modalities_changed),
            changes.ORTHANC_STARTED: started,
            changes.ORTHANC_STOPPED: stopped,
        }

    def __call__(self, change: int, level: int, resource: str) -> None:
        """Handle a change: its type, the level of the resource, and its Orthanc identifier."""
        try:
            if self._rules is not None:
                self._rules(change, level, resource)
            if change == self._deleted:
                if self._own.has_orthanc_id(resource):
                    self._shelves_deleted()
            elif change in self._others:
                self._others[change]()
        except Exception:
            _log.exception("Cannot process a change in Orthanc")
        if self._site.on_change is not None:
            self._site.on_change(change, level, resource)
