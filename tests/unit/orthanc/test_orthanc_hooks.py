# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the hooks answer to Orthanc; how a real Orthanc passes that on is in tests/acceptance."""

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from orthanc_ups.orthanc.hooks import ChangeForwarder, SiteCallbacks, UploadGuard
from orthanc_ups.orthanc.sdk import DicomInstance, Orthanc
from orthanc_ups.store import shelves

ORTHANC = cast(
    Orthanc,
    SimpleNamespace(
        InstanceOrigin=SimpleNamespace(DICOM_PROTOCOL=2, REST_API=3, PLUGIN=4),
        ReceivedInstanceAction=SimpleNamespace(KEEP_AS_IS=1, MODIFY=2, DISCARD=3),
        ChangeType=SimpleNamespace(DELETED=1, ORTHANC_STARTED=10, ORTHANC_STOPPED=11, UPDATED_MODALITIES=15),
    ),
)
KEEP, MODIFY = 1, 2
CREATED = shelves.StudyMoment("20260704", "120000")
INSTANCE = cast(DicomInstance, None)


def file(sop_class: str, sop_instance: str = "1.2.3", patient_id: str = "P") -> bytes:
    def element(tag: bytes, vr: bytes, value: str) -> bytes:
        padded = value.encode() + (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
        return tag + vr + len(padded).to_bytes(2, "little") + padded

    return (
        bytes(128)
        + b"DICM"
        + element(b"\x02\x00\x10\x00", b"UI", "1.2.840.10008.1.2.1")
        + element(b"\x08\x00\x16\x00", b"UI", sop_class)
        + element(b"\x08\x00\x18\x00", b"UI", sop_instance)
        + element(b"\x10\x00\x20\x00", b"LO", patient_id)
    )


CT = file("1.2.840.10008.5.1.4.1.1.2")


@pytest.fixture
def uploads() -> shelves.Uploads:
    return shelves.Uploads()


@pytest.fixture
def guard(uploads: shelves.Uploads) -> UploadGuard:
    return UploadGuard(ORTHANC, shelves.own_instances(uploads))


@pytest.mark.parametrize("origin", [3, 4], ids=["REST", "plugin"])
@pytest.mark.parametrize("number", ["6.1", "6.2", "6.3", "6.4", "6.5", "4.1", "4.2", "4.3", "4.4"])
def test_a_ups_object_is_replaced_by_what_orthanc_refuses(
    guard: UploadGuard, number: str, origin: int
) -> None:
    action, replacement = guard.received(file(f"1.2.840.10008.5.1.4.34.{number}"), origin)
    assert action == MODIFY
    assert replacement is not None and b"DICM" not in replacement
    assert guard.refusals == 1


@pytest.mark.parametrize("number", ["1", "7", "8", "10", "64"])
def test_the_storage_classes_of_radiotherapy_beside_them_pass(guard: UploadGuard, number: str) -> None:
    assert guard.received(file(f"1.2.840.10008.5.1.4.34.{number}"), 3) == (KEEP, None)


def test_a_c_store_of_a_ups_object_is_answered_0122_and_the_next_one_0000(guard: UploadGuard) -> None:
    action, substitute = guard.received(file("1.2.840.10008.5.1.4.34.6.1"), 2)
    assert action == MODIFY
    assert substitute is not None
    assert guard.received(substitute, 3) == (KEEP, None)
    guard.received(file("1.2.840.10008.5.1.4.34.6.1"), 2)
    assert guard.c_store(INSTANCE) == 0x0122
    assert guard.received(CT, 2) == (KEEP, None)
    assert guard.c_store(INSTANCE) == 0x0000


def test_a_refusal_that_orthanc_did_not_ask_for_does_not_hit_the_next_c_store(guard: UploadGuard) -> None:
    guard.received(file("1.2.840.10008.5.1.4.34.6.1"), 2)
    guard.received(CT, 2)
    assert guard.c_store(INSTANCE) == 0x0000


def test_what_claims_a_shelf_or_its_patient_is_refused(guard: UploadGuard) -> None:
    assert guard.received(file("1.2", shelves.sop_instance_uid(7)), 3)[0] == MODIFY
    assert guard.received(file("1.2", "1.2.3", shelves.PATIENT_ID), 3)[0] == MODIFY
    assert guard.received(shelves.dicom_file(0, CREATED), 3)[0] == MODIFY


def test_our_own_upload_of_a_shelf_passes_once(guard: UploadGuard, uploads: shelves.Uploads) -> None:
    uploads.expect(7)
    assert guard.received(shelves.dicom_file(8, CREATED), 3)[0] == MODIFY
    assert guard.received(shelves.dicom_file(7, CREATED), 3) == (KEEP, None)
    assert guard.received(shelves.dicom_file(7, CREATED), 3)[0] == MODIFY
    uploads.expect(9)
    uploads.done(9)
    assert guard.received(shelves.dicom_file(9, CREATED), 3)[0] == MODIFY


def test_the_log_names_the_instance_but_no_patient(
    guard: UploadGuard, caplog: pytest.LogCaptureFixture
) -> None:
    guard.received(file("1.2.840.10008.5.1.4.34.6.1", "1.2.3", "SECRET^ID"), 3)
    assert "1.2.3" in caplog.text
    assert "SECRET" not in caplog.text


def test_an_instance_passes_if_the_guard_fails(guard: UploadGuard, caplog: pytest.LogCaptureFixture) -> None:
    assert guard.received(cast(bytes, None), 3) == (KEEP, None)
    assert "accepting it" in caplog.text


UPS = file("1.2.840.10008.5.1.4.34.6.1")


def guard_beside(uploads: shelves.Uploads, answer: object) -> tuple[UploadGuard, list[bytes]]:
    """A guard beside a site's callback that answers so, and what that callback was given."""
    files: list[bytes] = []

    def received(dicom: bytes, origin: int) -> tuple[int, bytes | None]:
        files.append(dicom)
        return cast("tuple[int, bytes | None]", answer)

    return UploadGuard(
        ORTHANC, shelves.own_instances(uploads), SiteCallbacks(received_instance=received)
    ), files


@pytest.mark.parametrize("answer", [(KEEP, None), (3, None), (MODIFY, CT)], ids=["keep", "discard", "modify"])
def test_a_site_decides_about_what_is_not_refused(uploads: shelves.Uploads, answer: object) -> None:
    guard, files = guard_beside(uploads, answer)
    assert guard.received(CT, 3) == answer
    assert files == [CT]


def test_a_site_is_not_asked_about_what_is_refused_nor_about_our_own_uploads(
    uploads: shelves.Uploads,
) -> None:
    guard, files = guard_beside(uploads, (3, None))
    assert guard.received(UPS, 3)[0] == MODIFY
    uploads.expect(7)
    assert guard.received(shelves.dicom_file(7, CREATED), 3) == (KEEP, None)
    assert files == []


def test_what_a_site_makes_of_an_instance_is_judged_again(uploads: shelves.Uploads) -> None:
    guard, _ = guard_beside(uploads, (MODIFY, UPS))
    action, replacement = guard.received(CT, 3)
    assert action == MODIFY
    assert replacement not in (UPS, CT)


def test_a_site_filters_a_c_store_that_is_not_refused(uploads: shelves.Uploads) -> None:
    guard = UploadGuard(
        ORTHANC, shelves.own_instances(uploads), SiteCallbacks(c_store_filter=lambda _: 0xA700)
    )
    guard.received(CT, 2)
    assert guard.c_store(INSTANCE) == 0xA700
    guard.received(UPS, 2)
    assert guard.c_store(INSTANCE) == 0x0122


class _Loop:
    """Collects what is to be run soon."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def soon(self, function: Callable[[], None]) -> None:
        self.waiting.append(function)

    def run(self) -> None:
        waiting, self.waiting = self.waiting, []
        for function in waiting:
            function()


def forwarder(loop: _Loop, heard: list[str], **others: Any) -> ChangeForwarder:
    names = ("shelves_deleted", "modalities_changed", "started", "stopped")
    own = shelves.own_instances(shelves.Uploads())
    handlers = {name: lambda n=name: heard.append(n) for name in names}
    return ChangeForwarder(ORTHANC, own, loop.soon, **handlers | others)


def test_many_deleted_shelves_are_one_call_on_the_loop() -> None:
    loop, heard = _Loop(), list[str]()
    changes = forwarder(loop, heard)
    for name in (*shelves.INSTANCES, shelves.SERIES, shelves.STUDY, shelves.PATIENT):
        changes(1, 3, name)
    changes(1, 3, "ef0398b7-5f36d8c0-c62c51c2-da16fab1-31a5e1f2")
    loop.run()
    assert heard == ["shelves_deleted"]
    changes(1, 3, shelves.INSTANCES[0])
    loop.run()
    assert heard == ["shelves_deleted"] * 2


def test_other_changes_are_told_start_and_stop_at_once() -> None:
    loop, heard = _Loop(), list[str]()
    changes = forwarder(loop, heard)
    for change in (10, 11, 15, 3, 5):
        changes(change, 4, "")
    assert heard == ["started", "stopped"]
    loop.run()
    assert heard == ["started", "stopped", "modalities_changed"]


def test_a_failing_listener_is_logged_and_does_not_reach_orthanc(caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> None:
        raise RuntimeError("no")

    with caplog.at_level(logging.ERROR):
        forwarder(_Loop(), [], started=fails)(10, 4, "")
    assert "Cannot process a change in Orthanc" in caplog.text


def test_a_site_hears_of_every_change_after_us_even_if_we_fail() -> None:
    heard: list[object] = []

    def fails() -> None:
        heard.append("ours")
        raise RuntimeError("no")

    def on_change(change: int, level: int, resource: str) -> None:
        heard.append((change, level, resource))

    changes = forwarder(_Loop(), [], started=fails, site=SiteCallbacks(on_change=on_change))
    changes(10, 4, "")
    changes(99, 1, "abc")
    assert heard == ["ours", (10, 4, ""), (99, 1, "abc")]
