# SPDX-License-Identifier: AGPL-3.0-or-later
"""A site's own Python script installs the plugin: both receive Orthanc's callbacks, and neither breaks the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.association import Association

from tests.support.images import CT, c_store_association, file, instance
from tests.support.orthanc import RealOrthanc
from tests.support.plugin_scripts import write_script
from tests.support.waiting import wait_until
from tests.support.web_client import WebClient

PUSH = "1.2.840.10008.5.1.4.34.6.1"
SCRIPT = """
import orthanc_ups

UPS_FILE = open({ups_file!r}, "rb").read()

def on_change(change, level, resource):
    if change == orthanc.ChangeType.ORTHANC_STARTED:
        orthanc.LogWarning("SITE started")
    elif change == orthanc.ChangeType.ORTHANC_STOPPED:
        orthanc.LogWarning("SITE stopped")
    elif change == orthanc.ChangeType.NEW_INSTANCE:
        raise RuntimeError("SITE has a mistake in on_change")
    elif change == orthanc.ChangeType.UPDATED_MODALITIES:
        orthanc.LogWarning("SITE modalities")

def received_instance(dicom, origin):
    if b"DISCARD" in dicom:
        return orthanc.ReceivedInstanceAction.DISCARD, None
    if b"MODIFY^" in dicom:
        return orthanc.ReceivedInstanceAction.MODIFY, dicom.replace(b"MODIFY^", b"CHANGED")
    if b"TO A UPS" in dicom:
        return orthanc.ReceivedInstanceAction.MODIFY, UPS_FILE
    if b"MISTAKE" in dicom:
        raise RuntimeError("SITE has a mistake in received_instance")
    return orthanc.ReceivedInstanceAction.KEEP_AS_IS, None

def c_store_filter(instance):
    orthanc.LogWarning("SITE filter")
    return 0xA700 if instance.GetInstanceSize() > 5000 else 0

orthanc_ups.install(
    orthanc, on_change=on_change, received_instance=received_instance, c_store_filter=c_store_filter
)
"""


def numbered(number: int, name: str = "Nobody", sop_class: str = CT, size: int = 0) -> Dataset:
    """An instance of a patient, study and series of its own; ``size`` bytes longer than others."""
    return instance(
        sop_class,
        f"1.2.3.{number}",
        f"P{number}",
        PatientName=name,
        StudyInstanceUID=f"1.2.3.4.{number}",
        SeriesInstanceUID=f"1.2.3.4.{number}.1",
        PatientComments="x" * size,
    )


@pytest.fixture(scope="module")
def orthanc(suite: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealOrthanc]:
    folder = tmp_path_factory.mktemp("site")
    ups_file = folder / "ups.dcm"
    ups_file.write_bytes(file(numbered(99, sop_class=PUSH)))
    script = write_script(folder, SCRIPT.format(ups_file=str(ups_file)))
    overrides = {
        "AcceptedSopClasses": [PUSH, CT],
        "DicomModalities": {"sender": ["SENDER", "127.0.0.1", 11112]},
    }
    with RealOrthanc(suite, overrides, script=script) as running:
        wait_until(lambda: running.health() == 200, "the plugin is open")
        yield running


@pytest.fixture
def sender(orthanc: RealOrthanc) -> Iterator[Association]:
    contexts = [(sop_class, ExplicitVRLittleEndian) for sop_class in (CT, PUSH)]
    with c_store_association(orthanc, "SENDER", *contexts) as association:
        yield association


def post(orthanc: RealOrthanc, dataset: Dataset) -> int:
    return requests.post(f"{orthanc.base_url}/instances", file(dataset), timeout=60).status_code


def names(orthanc: RealOrthanc) -> set[str]:
    content = requests.get(f"{orthanc.base_url}/patients?expand", timeout=60).json()
    return {patient["MainDicomTags"].get("PatientName", "") for patient in content}


def test_the_worklist_works_and_the_script_hears_of_changes(orthanc: RealOrthanc) -> None:
    client = WebClient(f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web")
    uid = client.create()
    assert client.retrieve(uid)["00741000"]["Value"] == ["SCHEDULED"]
    client.session.close()
    orthanc.logs("SITE started")


def test_the_script_decides_about_what_the_plugin_does_not_refuse(orthanc: RealOrthanc) -> None:
    assert post(orthanc, numbered(1, "DISCARD")) == 200
    assert post(orthanc, numbered(2, "MODIFY^")) == 200
    assert post(orthanc, numbered(3, "KEPT")) == 200
    assert {"DISCARD", "MODIFY^"}.isdisjoint(names(orthanc))
    assert {"CHANGED", "KEPT"} <= names(orthanc)


def test_the_plugin_refuses_a_ups_object_also_if_the_script_made_it(orthanc: RealOrthanc) -> None:
    assert post(orthanc, numbered(4, "MODIFY^", PUSH)) == 400
    assert post(orthanc, numbered(5, "TO A UPS")) == 400


def test_a_c_store_is_refused_by_either(orthanc: RealOrthanc, sender: Association) -> None:
    assert sender.send_c_store(numbered(6, sop_class=PUSH)).Status == 0x0122
    assert sender.send_c_store(numbered(7, size=10_000)).Status == 0xA700
    assert sender.send_c_store(numbered(8, "BY C-STORE")).Status == 0x0000
    assert "BY C-STORE" in names(orthanc)


def test_mistakes_of_the_script_are_logged_by_orthanc_and_the_plugin_goes_on(orthanc: RealOrthanc) -> None:
    assert post(orthanc, numbered(9, "MISTAKE")) == 200
    orthanc.logs("mistake in received_instance")
    orthanc.logs("mistake in on_change")
    new = {"AET": "LATER", "Host": "127.0.0.1", "Port": 104}
    requests.put(f"{orthanc.base_url}/modalities/later", json=new, timeout=60).raise_for_status()
    orthanc.logs("SITE modalities")
    assert post(orthanc, numbered(10, sop_class=PUSH)) == 400
    assert orthanc.health() == 200


def test_without_ups_enable_the_callbacks_of_the_script_are_registered_alone(
    suite: str, tmp_path: Path
) -> None:
    ups_file = tmp_path / "ups.dcm"
    ups_file.write_bytes(file(numbered(99, sop_class=PUSH)))
    script = write_script(tmp_path, SCRIPT.format(ups_file=str(ups_file)))
    with RealOrthanc(suite, {"Ups": {"Enable": False}}, script=script) as running:
        running.logs("SITE started")
        assert post(running, numbered(1, "DISCARD")) == 200
        assert post(running, numbered(2, "A UPS", PUSH)) == 200
        assert names(running) == {"A UPS"}
        assert running.stop() == 0
        assert "SITE stopped" in running.log_text()
