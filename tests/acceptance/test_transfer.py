# SPDX-License-Identifier: AGPL-3.0-or-later
"""A worklist moves from Orthanc 1.12.7 to 1.13.0 by an export and an import, and delivery goes on there."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, element, text
from tests.support import modality
from tests.support.event_receiver import EventReceiver, Report
from tests.support.modality import ModalityClient
from tests.support.orthanc import CHECKOUT, SUITES, RealOrthanc
from tests.support.ports import free_port
from tests.support.waiting import wait_until
from tests.support.web_client import WebClient, next_event, state
from tests.support.workitems import full, performed, progress

pytestmark = [pytest.mark.real, pytest.mark.slow]
_WANTED = os.environ.get("ORTHANC_UPS_SUITES", " ".join(SUITES)).replace(",", " ").split()
_SEQUENCE = "00771001"


@dataclass
class Rig:
    """One Orthanc after the other, with the same neighbours.

    Attributes:
        pacs: a receiver that is always there; ``away`` one that is not, until the move is done.
    """

    folder: Path
    pacs: EventReceiver
    away: EventReceiver
    orthancs: list[RealOrthanc] = field(default_factory=list)

    def orthanc(self, suite: str) -> RealOrthanc:
        """A new Orthanc that knows the receivers."""
        near = {
            receiver.ae_title: [receiver.ae_title, "127.0.0.1", receiver.port]
            for receiver in (self.pacs, self.away)
        }
        modalities = {**near, "CT1": ["CT1", "127.0.0.1", 104]}
        running = RealOrthanc(
            suite, {"DicomModalities": modalities, "Ups": {"ModalityWorklist": {"Enable": True}}}
        )
        self.orthancs.append(running)
        return running

    def transfer(self, action: str, orthanc: RealOrthanc, file: Path) -> subprocess.CompletedProcess[str]:
        """Run the tool that README names."""
        command = [sys.executable, "-m", "tools.transfer", action, orthanc.base_url, str(file)]
        return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=120)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with EventReceiver("PACS") as pacs:
        away = EventReceiver("AWAY", port=free_port())
        rig = Rig(tmp_path, pacs, away)
        yield rig
        away.stop()
        for orthanc in rig.orthancs:
            orthanc.discard()


def client_of(orthanc: RealOrthanc) -> WebClient:
    return WebClient(f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web")


def subscribe(client: WebClient, ae: str, lock: bool = False) -> None:
    path = f"/workitems/{tags.GLOBAL_SUBSCRIPTION}/subscribers/{ae}?deletionlock={str(lock).lower()}"
    assert client.post(path).status_code == 201


def in_short(report: Report) -> tuple[str, str]:
    return report.uid, text(report.information, tags.STATE) or f"event {report.type}"


def of_workitems(reports: list[Report]) -> list[tuple[str, str]]:
    return [in_short(report) for report in reports if report.type != 4]


def sequence(event: dict[str, Any]) -> int:
    return int(event[_SEQUENCE]["Value"][0])


def test_a_worklist_moves_with_everything_that_belongs_to_it(rig: Rig) -> None:
    file = rig.folder / "worklist.ndjson.gz"
    with rig.orthanc(_WANTED[-1]) as source:
        client = client_of(source)
        subscribe(client, "PACS")
        subscribe(client, "AWAY", lock=True)
        subscribe(client, "VIEWER")
        with client.socket("VIEWER") as socket:
            waiting, moved = client.create(full("japanese")), client.create(full("greek"))
            transaction = client.claim(moved)
            assert client.post(
                f"/workitems/{moved}?transaction-uid={transaction}", performed() | progress("60")
            ).ok
            done, canceled = client.create(), client.create()
            client.complete(done)
            client.cancel(canceled)
            events = [next_event(socket) for _ in range(12)]
        before = {uid: client.retrieve(uid) for uid in (waiting, moved, done, canceled)}
        expected = of_workitems(rig.pacs.wait_for(12))
        exported = rig.transfer("export", source, file)
        assert exported.returncode == 0, exported.stderr
        assert source.stop() == 0

    written = gzip.decompress(file.read_bytes()).decode()
    header = json.loads(written.splitlines()[0])
    assert header["format"] == 1 and header["counts"]["workitems"] == 4
    assert transaction not in written

    target = rig.orthanc(_WANTED[0])
    target.start()
    client = client_of(target)
    rig.away.start()
    imported = rig.transfer("import", target, file)
    assert imported.returncode == 0, imported.stdout + imported.stderr
    report = requests.get(f"{target.base_url}/ups/api/import").json()
    assert report["state"] == "complete" and report["mode"] == "restore"
    assert report["counts"]["workitems"]["imported"] == 4

    # Content, states and what waited came along, and nobody hears anything twice.
    assert {uid: client.retrieve(uid) for uid in before} == before
    assert of_workitems(rig.away.wait_for(len(expected))) == expected
    assert of_workitems(rig.pacs.reports) == expected

    # The claim is still the claim, subscriptions are still there, and a WebSocket goes on by its number.
    with client.socket("VIEWER", since=sequence(events[-1])) as socket:
        assert client.put(f"/workitems/{moved}/state", state("COMPLETED", transaction)).ok
        event = next_event(socket)
    assert event["00001000"]["Value"] == [moved] and sequence(event) > sequence(events[-1])
    wait_until(lambda: (moved, "COMPLETED") in of_workitems(receive(rig.pacs)), "PACS is told")
    assert locks(target, waiting) == {"AWAY": True, "PACS": False, "VIEWER": False}

    # Once more changes nothing, and all of it outlives a restart.
    again = rig.transfer("import", target, file)
    assert again.returncode == 3 and "conflict" in again.stdout, "the completed one has another content now"
    assert f"workitems {moved}" in again.stdout
    now = {uid: client.retrieve(uid) for uid in before}
    target.kill()
    target.start()
    assert {uid: client.retrieve(uid) for uid in before} == now


def receive(receiver: EventReceiver) -> list[Report]:
    receiver.silent_for(0.2)
    return receiver.reports


def locks(orthanc: RealOrthanc, uid: str) -> dict[str, bool]:
    content = requests.get(f"{orthanc.base_url}/ups/api/workitems/{uid}").json()
    return {subscriber["ae"]: subscriber["lock"] for subscriber in content["subscribers"]}


def test_a_worklist_that_has_some_takes_over_what_it_does_not_have(rig: Rig) -> None:
    file = rig.folder / "worklist.ndjson"
    with rig.orthanc(_WANTED[-1]) as source:
        client = client_of(source)
        claimed, unclaimed = client.create(full("cyrillic")), client.create()
        before: dict[str, DataSet] = {uid: client.retrieve(uid) for uid in (claimed, unclaimed)}
        assert rig.transfer("export", source, file).returncode == 0
    with rig.orthanc(_WANTED[0]) as target:
        client = client_of(target)
        subscribe(client, "PACS")
        own = client.create()
        rig.pacs.wait_for(1)
        assert rig.transfer("import", target, file).returncode == 0
        assert {uid: client.retrieve(uid) for uid in before} == before
        reports = of_workitems(rig.pacs.wait_for(4))
        assert reports == [
            (own, "SCHEDULED"),
            (claimed, "SCHEDULED"),
            (claimed, "event 5"),
            (unclaimed, "SCHEDULED"),
        ]
        assert rig.transfer("import", target, file).returncode == 0
        assert rig.pacs.silent_for(0.5)


def test_f_7_2_2_what_a_modality_began_is_completed_where_the_worklist_moved_to(rig: Rig) -> None:
    file, step = rig.folder / "worklist.ndjson", "2.25.31"
    with rig.orthanc(_WANTED[-1]) as source, ModalityClient(source.ups_dicom_port) as ct:
        uid = client_of(source).create()
        reference = {"00081150": element("UI", tags.PUSH), "00081155": element("UI", uid)}
        item = modality.scheduled(t00081110=element("SQ", reference))
        assert ct.begin(step, modality.begun(item)).code == 0
        assert rig.transfer("export", source, file).returncode == 0
    with rig.orthanc(_WANTED[0]) as target, ModalityClient(target.ups_dicom_port) as ct:
        assert rig.transfer("import", target, file).returncode == 0
        client = client_of(target)
        assert text(client.retrieve(uid), tags.STATE) == "IN PROGRESS"
        assert ct.report(step, modality.ended()).code == 0
        assert text(client.retrieve(uid), tags.STATE) == "COMPLETED"


def test_a_file_that_is_none_is_refused_with_the_number_of_its_line(rig: Rig) -> None:
    file = rig.folder / "worklist.ndjson"
    with rig.orthanc(_WANTED[0]) as orthanc:
        file.write_text('{"kind": "header", "product": "orthanc-ups", "format": 99}\n')
        refused = rig.transfer("import", orthanc, file)
        assert refused.returncode == 1
        assert refused.stderr.startswith("transfer: line 1 of the file: the format is 99, expected 1")
