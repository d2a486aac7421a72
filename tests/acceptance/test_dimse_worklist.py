# SPDX-License-Identifier: AGPL-3.0-or-later
"""The main job over DIMSE on a real Orthanc: schedule, find, claim, perform, receive events (PS3.17 GGG)."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, element, items, text
from tests.support import workitems
from tests.support.dimse_client import IMPLICIT, Answer, UpsClient
from tests.support.event_receiver import EventReceiver, Report
from tests.support.orthanc import RealOrthanc

pytestmark = pytest.mark.postgresql

TRANSACTION = "2.25.815"
STATE_REPORT, CANCEL_REQUESTED, PROGRESS, STATUS_CHANGE, ASSIGNED = 1, 2, 3, 4, 5


@pytest.fixture(scope="module")
def orthanc_overrides() -> dict[str, Any]:
    return {"DicomModalities": {"scu": ["SCU", "127.0.0.1", 104], "other": ["OTHER", "127.0.0.1", 104]}}


@pytest.fixture
def client(orthanc: RealOrthanc) -> Iterator[UpsClient]:
    with UpsClient(orthanc.ups_dicom_port) as open_client:
        yield open_client


def known_to(orthanc: RealOrthanc, receiver: EventReceiver) -> None:
    """Tell Orthanc where the receiver is, at run time."""
    entry = {"AET": receiver.ae_title, "Host": "127.0.0.1", "Port": receiver.port}
    requests.put(f"{orthanc.base_url}/modalities/{receiver.ae_title}", json=entry).raise_for_status()


@pytest.fixture
def watcher(orthanc: RealOrthanc, request: pytest.FixtureRequest) -> Iterator[EventReceiver]:
    with EventReceiver(f"W{abs(hash(request.node.name)) % 10**8}") as receiver:
        known_to(orthanc, receiver)
        yield receiver


def created(client: UpsClient, attributes: DataSet | None = None) -> str:
    answer = client.create(attributes or workitems.minimal())
    assert answer.code == 0, answer
    return answer.uid


def codes(*answers: Answer) -> list[int | None]:
    return [answer.code for answer in answers]


def state(report: Report) -> str:
    return text(report.information, tags.STATE)


def test_ggg_3_1_pull_workflow_from_scheduling_to_completion(
    orthanc: RealOrthanc, client: UpsClient, watcher: EventReceiver
) -> None:
    uid = created(client, workitems.full("japanese"))
    assert client.subscribe(uid, watcher.ae_title).code == 0
    assert client.change_state(uid, "IN PROGRESS", TRANSACTION).code == 0
    assert client.update(uid, workitems.progress("40", "Reading"), TRANSACTION).code == 0
    assert client.change_state(uid, "COMPLETED", TRANSACTION).code == 0xC304
    assert client.update(uid, workitems.performed(), TRANSACTION).code == 0
    assert client.change_state(uid, "COMPLETED", TRANSACTION).code == 0
    reports = watcher.wait_for(4)
    assert [(report.type, state(report)) for report in reports] == [
        (STATE_REPORT, "SCHEDULED"),
        (STATE_REPORT, "IN PROGRESS"),
        (PROGRESS, ""),
        (STATE_REPORT, "COMPLETED"),
    ]
    assert {(report.uid, report.sop_class, report.roles) for report in reports} == {
        (uid, tags.PUSH, (False, True))
    }
    (progress,) = items(reports[2].information, tags.PROGRESS_INFORMATION)
    assert text(progress, tags.PROGRESS_DESCRIPTION) == "Reading"
    final = client.get(uid)
    assert final.code == 0
    assert final.attributes["00100010"] == element("PN", workitems.person("japanese"))
    assert TRANSACTION not in repr(final)


def test_cc_2_1_of_two_claimers_at_the_same_time_exactly_one_wins(
    orthanc: RealOrthanc, client: UpsClient
) -> None:
    uids = [created(client) for _ in range(10)]
    won: list[tuple[str, str]] = []

    def claim(ae: str) -> None:
        with UpsClient(orthanc.ups_dicom_port, ae) as claimer:
            for uid in uids:
                code = claimer.change_state(uid, "IN PROGRESS", f"2.25.{ord(ae[0])}").code
                assert code in (0, 0xC301)
                if code == 0:
                    won.append((uid, ae))

    threads = [threading.Thread(target=claim, args=(ae,)) for ae in ("SCU", "OTHER")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(uid for uid, _ in won) == sorted(uids)


def test_cc_2_2_canceling_a_scheduled_workitem_shows_both_states(
    client: UpsClient, watcher: EventReceiver
) -> None:
    uid = created(client)
    client.subscribe(uid, watcher.ae_title)
    reason: DataSet = {tags.REASON_FOR_CANCELLATION: element("LT", "Patient went home")}
    assert codes(client.request_cancel(uid, reason), client.request_cancel(uid)) == [0, 0xB304]
    reports = watcher.wait_for(3)
    assert [state(report) for report in reports] == ["SCHEDULED", "IN PROGRESS", "CANCELED"]
    assert text(reports[2].information, tags.REASON_FOR_CANCELLATION) == "Patient went home"
    assert reports[2].information[tags.DISCONTINUATION_REASONS]["Value"][0][tags.CODE_VALUE] == element(
        "SH", "110513"
    )


def test_cc_2_2_a_performer_is_asked_to_cancel(
    orthanc: RealOrthanc, client: UpsClient, watcher: EventReceiver
) -> None:
    uid = created(client)
    client.change_state(uid, "IN PROGRESS", TRANSACTION)
    client.subscribe(uid, watcher.ae_title)
    with UpsClient(orthanc.ups_dicom_port, "OTHER") as requester:
        information: DataSet = {
            tags.CONTACT_NAME: element("LO", "Ward 3"),
            tags.CONTACT_URI: element("UR", "tel:1"),
        }
        assert requester.request_cancel(uid, information).code == 0
    request = watcher.wait_for(2)[1]
    assert request.type == CANCEL_REQUESTED
    assert request.information == {**information, tags.REQUESTING_AE: element("AE", "OTHER")}
    assert text(client.get(uid, [tags.STATE]).attributes, tags.STATE) == "IN PROGRESS"


def test_cc_2_3_global_and_gift_subscriptions(client: UpsClient, watcher: EventReceiver) -> None:
    before = created(client)
    assert client.subscribe(tags.GLOBAL_SUBSCRIPTION, watcher.ae_title).code == 0
    after = created(client, workitems.full())
    reports = watcher.wait_for(2)
    assert [(report.type, report.uid) for report in reports] == [(STATE_REPORT, after), (ASSIGNED, after)]
    assert client.suspend(tags.GLOBAL_SUBSCRIPTION, watcher.ae_title).code == 0
    created(client)
    client.request_cancel(before)
    assert [state(report) for report in watcher.wait_for(4)[2:]] == ["IN PROGRESS", "CANCELED"]
    assert client.unsubscribe(tags.GLOBAL_SUBSCRIPTION, watcher.ae_title).code == 0
    client.request_cancel(after)
    assert watcher.silent_for(0.5)


def test_cc_2_3_filtered_subscriptions(client: UpsClient, watcher: EventReceiver) -> None:
    filter: DataSet = {tags.WORKLIST_LABEL: element("LO", watcher.ae_title)}
    assert client.subscribe(tags.FILTERED_SUBSCRIPTION, watcher.ae_title, filter=filter).code == 0
    created(client)
    fitting = created(client, workitems.minimal(t00741202=element("LO", watcher.ae_title)))
    assert [report.uid for report in watcher.wait_for(1)] == [fitting]
    assert watcher.silent_for(0.5)
    client.unsubscribe(tags.GLOBAL_SUBSCRIPTION, watcher.ae_title)


def test_cc_2_3_3_an_unknown_receiving_ae_is_c308(client: UpsClient) -> None:
    uid = created(client)
    assert client.subscribe(uid, "NOBODY").code == 0xC308


@pytest.mark.parametrize("who", ["japanese", "cyrillic", "greek", "latin-1"])
def test_cc_2_8_names_match_in_every_repertoire(orthanc: RealOrthanc, client: UpsClient, who: str) -> None:
    uid = created(client, workitems.full(who))
    name = workitems.person(who)
    alphabetic = name["Alphabetic"].split("^")[0]
    station: DataSet = {tags.CODE_VALUE: element("SH", "READING8"), tags.CODE_MEANING: element("LO")}
    keys: DataSet = {
        tags.SOP_INSTANCE_UID: element("UI", uid),
        "00100010": element("PN", {"Alphabetic": f"{alphabetic}*"}),
        tags.STATION_NAME: element("SQ", station),
    }
    with UpsClient(orthanc.ups_dicom_port, syntaxes=[IMPLICIT]) as implicit:
        for asking in (client, implicit):
            match, last = asking.find(keys)
            assert codes(match, last) == [0xFF00, 0]
            assert match.attributes["00100010"] == element("PN", name)
            assert len(items(match.attributes, tags.STATION_NAME)) == 2
            assert match.attributes.keys() - {tags.TIMEZONE_OFFSET} == keys.keys()


def test_cc_2_8_a_query_that_matches_nothing(client: UpsClient) -> None:
    assert codes(*client.find({tags.LABEL: element("LO", "No such thing")})) == [0]


def test_cc_2_8_c_cancel_on_many_matches(orthanc: RealOrthanc, client: UpsClient) -> None:
    label = "MANY TO CANCEL"
    for _ in range(100):
        created(client, workitems.minimal(t00741202=element("LO", label)))
    keys: DataSet = {tags.WORKLIST_LABEL: element("LO", label), tags.SOP_INSTANCE_UID: element("UI")}
    assert len(client.find(keys)) == 101
    answers = client.find(keys, cancel_after=1)
    assert answers[-1].code in (0xFE00, 0)  # all may have been on their way already
    assert client.echo().code == 0


def test_what_is_refused_names_the_attribute(client: UpsClient) -> None:
    missing = client.create(workitems.minimal(t00741204=None))
    assert (missing.code, missing.offending) == (0x0120, tags.LABEL)
    assert "(0074,1204)" in missing.comment
    wrong = client.create(workitems.minimal(t00741200=element("CS", "URGENT")))
    assert (wrong.code, wrong.offending) == (0x0106, tags.PRIORITY)
    scheduled = client.create(workitems.minimal(t00741000=element("CS", "COMPLETED")))
    assert (scheduled.code, scheduled.offending) == (0xC309, tags.STATE)


def test_cc_2_5_a_uid_that_exists_is_0111(client: UpsClient) -> None:
    uid = created(client)
    assert client.create(workitems.minimal(), uid).code == 0x0111


def test_an_unknown_ae_is_let_in_once_orthanc_knows_it(orthanc: RealOrthanc) -> None:
    with UpsClient(orthanc.ups_dicom_port, "NEWCOMER") as newcomer:
        assert newcomer.echo().code == 0
        refused = newcomer.create(workitems.minimal())
        assert (refused.code, refused.comment) == (0x0124, "AE title NEWCOMER is not in DicomModalities")
        entry = {"AET": "NEWCOMER", "Host": "127.0.0.1", "Port": 104}
        requests.put(f"{orthanc.base_url}/modalities/newcomer", json=entry).raise_for_status()
    with UpsClient(orthanc.ups_dicom_port, "newcomer") as newcomer:
        assert newcomer.create(workitems.minimal()).code == 0
