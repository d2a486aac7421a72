# SPDX-License-Identifier: AGPL-3.0-or-later
"""A real Orthanc refuses uploads of UPS objects over every interface, with an answer that says why."""

import asyncio
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
import requests
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.association import Association

from orthanc_ups.orthanc.loopback import Loopback
from orthanc_ups.store import shelves
from orthanc_ups.store.metadata import OrthancEntries
from orthanc_ups.store.port import StoreUnavailable
from tests.support.images import CT, c_store_association, file, instance, stow
from tests.support.orthanc import DICOMWEB_PLUGIN, PYTHON_PLUGIN, RealOrthanc
from tests.support.plugin_scripts import write_script

CREATED = shelves.StudyMoment("20260704", "120000")
RAW = "1.2.840.10008.5.1.4.1.1.66"
PUSH = "1.2.840.10008.5.1.4.34.6.1"
REFUSED_UPLOADS = [
    (PUSH, "1.2.3.1", "P"),
    (RAW, shelves.sop_instance_uid(5), "P"),
    (CT, "1.2.3.2", shelves.PATIENT_ID),
]
NAMES = ["UPS object", "shelf", "patient of the shelves"]

SCRIPT = """
from orthanc_ups.store.shelves import Uploads, own_instances
from orthanc_ups.orthanc.hooks import ChangeForwarder, UploadGuard

uploads = Uploads()
own = own_instances(uploads)
guard = UploadGuard(orthanc, own)
orthanc.RegisterReceivedInstanceCallback(guard.received)
orthanc.RegisterIncomingCStoreInstanceFilter(guard.c_store)

def hears(name):
    return lambda: orthanc.LogWarning(f"HEARD {name}")

orthanc.RegisterOnChangeCallback(ChangeForwarder(
    orthanc, own, lambda function: function(), shelves_deleted=hears("deleted"), modalities_changed=hears("modalities"),
    started=hears("started"), stopped=hears("stopped"),
))

def expect(output, uri, **request):
    for shelf in range(256):
        uploads.expect(shelf)
    output.AnswerBuffer("expected", "text/plain")

orthanc.RegisterRestCallback("/test/expect", expect)
"""


@pytest.fixture(scope="module")
def orthanc(suite: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealOrthanc]:
    script = write_script(tmp_path_factory.mktemp("uploads"), SCRIPT)
    overrides = {
        "Plugins": [PYTHON_PLUGIN, DICOMWEB_PLUGIN],
        "AcceptedSopClasses": [PUSH, CT, RAW],
        "DicomModalities": {"sender": ["SENDER", "127.0.0.1", 11112]},
    }
    with RealOrthanc(suite, overrides, script=script) as running:
        yield running


def post(orthanc: RealOrthanc, path: str, body: bytes, **headers: str) -> requests.Response:
    return requests.post(f"{orthanc.base_url}{path}", body, headers=headers, timeout=60)


def stored(orthanc: RealOrthanc) -> set[str]:
    content = requests.get(f"{orthanc.base_url}/instances?expand", timeout=60).json()
    return {instance["MainDicomTags"]["SOPInstanceUID"] for instance in content}


@pytest.fixture
def sender(orthanc: RealOrthanc) -> Iterator[Association]:
    contexts = [(sop_class, ExplicitVRLittleEndian) for sop_class in (CT, PUSH, RAW)]
    with c_store_association(orthanc, "SENDER", *contexts) as association:
        yield association


@pytest.mark.parametrize("upload", REFUSED_UPLOADS, ids=NAMES)
def test_rest_answers_400_and_stores_nothing(orthanc: RealOrthanc, upload: tuple[str, str, str]) -> None:
    answer = post(orthanc, "/instances", file(instance(*upload)))
    assert answer.status_code == 400
    assert upload[1] not in stored(orthanc)
    assert f"Refused an upload of {upload[1]}" not in answer.text


def element(group: int, number: int, vr: bytes, text: str) -> bytes:
    value = text.encode() + (b"\0" if vr == b"UI" else b" ") * (len(text) % 2)
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def explicit(*elements: bytes, syntax: str = "1.2.840.10008.1.2.1", sop_class: str = CT) -> bytes:
    meta = element(2, 2, b"UI", sop_class) + element(2, 3, b"UI", "1.2.3.60") + element(2, 16, b"UI", syntax)
    length = struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(meta))
    return bytes(128) + b"DICM" + length + meta + b"".join(elements)


def deflated(*elements: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = packer.compress(b"".join(elements)) + packer.flush()
    return explicit(packed, b"\0" * (len(packed) % 2), syntax="1.2.840.10008.1.2.1.99")


UPS = element(8, 0x16, b"UI", PUSH)
REST = (
    element(8, 0x18, b"UI", "1.2.3.60"),
    element(0x10, 0x20, b"LO", "P"),
    element(0x20, 0x0D, b"UI", "1.2.3"),
    element(0x20, 0x0E, b"UI", "1.2.3.4"),
)
MANY = tuple(element(9, 0x1001 + number, b"LO", str(number)) for number in range(20_001))
LONG = element(9, 0x1000, b"LT", "x" * 65_000)
ODD = {
    "SOP Class behind everything": explicit(*REST, UPS),
    "20,001 elements in front": explicit(element(9, 0x10, b"LO", "TEST"), *MANY, UPS, *REST),
    "deflated with much in front": deflated(element(9, 0x10, b"LO", "TEST"), LONG, LONG, UPS, *REST),
    "without meta information": UPS + b"".join(REST),
    "spaces in front": explicit(element(8, 0x16, b"UI", " " * 300 + PUSH), *REST),
    "UPS by its meta information only": explicit(*REST, sop_class=PUSH),
    "another SOP Class in its meta information": explicit(UPS, *REST, sop_class=CT),
}


@pytest.mark.parametrize("upload", ODD.values(), ids=ODD)
def test_what_orthanc_reads_the_guard_reads(orthanc: RealOrthanc, upload: bytes) -> None:
    assert post(orthanc, "/instances", upload).status_code == 400
    assert "1.2.3.60" not in stored(orthanc)


def test_files_that_are_not_in_order_pass_if_they_are_no_ups(orthanc: RealOrthanc) -> None:
    harmless = explicit(*REST, element(8, 0x16, b"UI", CT))
    assert post(orthanc, "/instances", harmless).status_code == 200
    content = requests.get(f"{orthanc.base_url}/instances?expand", timeout=60).json()
    assert [
        resource["ID"] for resource in content if resource["MainDicomTags"]["SOPInstanceUID"] == "1.2.3.60"
    ]
    for resource in content:
        if resource["MainDicomTags"]["SOPInstanceUID"] == "1.2.3.60":
            requests.delete(f"{orthanc.base_url}/instances/{resource['ID']}", timeout=60).raise_for_status()


def test_an_object_made_by_orthanc_itself_is_refused(orthanc: RealOrthanc) -> None:
    tags = {"Tags": {"SOPClassUID": PUSH, "PatientID": "P"}}
    assert requests.post(f"{orthanc.base_url}/tools/create-dicom", json=tags, timeout=60).status_code == 400


def test_of_a_zip_archive_the_rest_is_stored(orthanc: RealOrthanc) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("refused", file(instance(PUSH, "1.2.3.30")))
        zipped.writestr("taken", file(instance(CT, "1.2.3.31")))
    answer = post(orthanc, "/instances", archive.getvalue())
    assert [row["Status"] for row in answer.json()] == ["Success"]
    assert stored(orthanc) & {"1.2.3.30", "1.2.3.31"} == {"1.2.3.31"}


@pytest.mark.parametrize("upload", REFUSED_UPLOADS, ids=NAMES)
def test_stow_lists_it_in_failed_sop_sequence_and_stores_the_rest(
    orthanc: RealOrthanc, upload: tuple[str, str, str]
) -> None:
    accepted = f"1.2.3.40.{len(upload[2])}{len(upload[1])}"
    answer = stow(orthanc, file(instance(*upload)), file(instance(CT, accepted)))
    assert answer.status_code == 202
    failed = answer.json()["00081198"]["Value"]
    assert [item["00081155"]["Value"] for item in failed] == [[upload[1]]]
    assert [item["00081197"]["Value"] for item in failed] == [[0x0110]]
    assert stored(orthanc) & {upload[1], accepted} == {accepted}


@pytest.mark.parametrize("upload", REFUSED_UPLOADS, ids=NAMES)
def test_c_store_answers_0122_and_goes_on(
    orthanc: RealOrthanc, sender: Association, upload: tuple[str, str, str]
) -> None:
    assert sender.send_c_store(instance(*upload)).Status == 0x0122
    assert sender.send_c_store(instance(CT, "1.2.3.50")).Status == 0x0000
    assert stored(orthanc) & {upload[1], "1.2.3.50"} == {"1.2.3.50"}


def test_our_shelves_pass_if_announced_and_never_otherwise(orthanc: RealOrthanc, sender: Association) -> None:
    async def open_entries() -> frozenset[int]:
        async with Loopback(orthanc.base_url) as loopback:
            entries = OrthancEntries(loopback)
            await entries.open()
            return await entries.missing()

    with pytest.raises(StoreUnavailable, match="cannot create shelf"):
        asyncio.run(open_entries())
    requests.get(f"{orthanc.base_url}/test/expect", timeout=60)
    assert asyncio.run(open_entries()) == {0}  # there, though not marked complete
    assert post(orthanc, "/instances", shelves.dicom_file(0, CREATED)).status_code == 400

    study = f"{orthanc.base_url}/studies/{shelves.STUDY}/modify"
    keeping = {
        "Replace": {"StudyDescription": "x"},
        "Keep": ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"],
    }
    answer: Any = requests.post(study, json=keeping, timeout=60)
    assert not answer.ok
    marks = requests.get(f"{orthanc.base_url}/instances/{shelves.INSTANCES[0]}/metadata", timeout=60).json()
    assert "ModifiedFrom" not in marks

    shelf = pydicom.dcmread(io.BytesIO(shelves.dicom_file(0, CREATED)))
    assert sender.send_c_store(shelf).Status == 0x0122  # though Orthanc has it

    requests.delete(f"{orthanc.base_url}/patients/{shelves.PATIENT}", timeout=60).raise_for_status()
    orthanc.logs("HEARD deleted")


def test_start_stop_and_changed_modalities_are_heard(suite: str, tmp_path: Path) -> None:
    with RealOrthanc(suite, script=write_script(tmp_path, SCRIPT), folder=tmp_path) as running:
        running.logs("HEARD started")
        new = {"AET": "NEW", "Host": "127.0.0.1", "Port": 104}
        requests.put(f"{running.base_url}/modalities/new", json=new, timeout=60).raise_for_status()
        running.logs("HEARD modalities")
        assert running.stop() == 0
        assert "HEARD stopped" in running.log_text()
