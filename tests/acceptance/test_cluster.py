# SPDX-License-Identifier: AGPL-3.0-or-later
"""Two Orthancs on one PostgreSQL share a worklist: one leads, the other relays; it takes over when the first ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import requests
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from orthanc_ups.cluster.lease import LEASE
from orthanc_ups.core import tags
from orthanc_ups.core.dataset import element, text
from orthanc_ups.management import sentences
from tests.support import modality, workitems
from tests.support.dcmtk import findscu_worklist
from tests.support.dimse_client import NoAssociation, UpsClient
from tests.support.images import by_rest, image
from tests.support.modality import ModalityClient
from tests.support.nodes import health, is_warm, leads, nodes, stands_by
from tests.support.orthanc import RealOrthanc
from tests.support.postgresql import PostgreSql
from tests.support.waiting import wait_until
from tests.support.web_client import WebClient, next_event

FAILOVER: Final = 60.0
"""Seconds, on a machine that does much else; by itself it takes some three."""
READ_AGAIN: Final = "read the whole worklist"
ALONE: Final = sentences.NO_STANDBY
RULE: Final = {
    "Name": "Read every series",
    "When": "StableSeries",
    "Create": {"Attributes": {"ProcedureStepLabel": "Read {PatientID}", "WorklistLabel": "RULED"}},
}
OVERRIDES: Final = {
    "StableAge": 1,
    "DicomModalities": {"scu": ["SCU", "127.0.0.1", 104]},
    "Ups": {"ModalityWorklist": {"Enable": True}, "Rules": [RULE]},
}

Pair = tuple[RealOrthanc, RealOrthanc]


@pytest.fixture(scope="module")
def database() -> Iterator[PostgreSql]:
    with PostgreSql() as server:
        yield server


@pytest.fixture(scope="module")
def cluster(
    suite: str, database: PostgreSql, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[RealOrthanc]]:
    folder = tmp_path_factory.mktemp("nodes")
    with nodes(suite, folder, database, overrides=OVERRIDES) as started:
        for node in started:
            node.launch()
        yield started


@pytest.fixture
def pair(cluster: list[RealOrthanc]) -> Pair:
    """The leader and the standby."""
    for node in cluster:
        if not node.is_running():
            node.launch()
    wait_until(
        lambda: roles(cluster) == ["leader", "standby"],
        lambda: "\n".join([f"one leads: {roles(cluster)}", *(node.log_tail() for node in cluster)]),
    )
    leader, standby = sorted(cluster, key=lambda node: health(node)[1])
    return leader, standby


def roles(everyone: list[RealOrthanc]) -> list[str]:
    return sorted(role if state in ("open", "standby") else state for state, role in map(health, everyone))


def client(node: RealOrthanc) -> WebClient:
    return WebClient(f"http://127.0.0.1:{node.ups_http_port}/dicom-web")


def state_of(web: WebClient, uid: str) -> str:
    return text(web.retrieve(uid), tags.STATE)


def test_two_that_start_at_once_are_a_leader_and_a_standby(pair: Pair, database: PostgreSql) -> None:
    leader, standby = pair
    assert leader.logs("This node leads the worklist now").count("This node leads the worklist now") == 1
    assert "This node leads" not in standby.log_text()


def test_what_one_node_was_told_every_node_tells(pair: Pair) -> None:
    leader, standby = map(client, pair)
    uid = standby.create()
    assert state_of(leader, uid) == state_of(standby, uid) == "SCHEDULED"
    transaction = leader.claim(uid)
    assert state_of(standby, uid) == "IN PROGRESS"
    refused = standby.put(f"/workitems/{uid}/state", {
        tags.STATE: element("CS", "COMPLETED"), tags.TRANSACTION_UID: element("UI", "2.25.1"),
    })  # fmt: skip
    assert refused.status_code == 400 or refused.status_code == 409, refused.text
    assert transaction
    listed = requests.get(f"{pair[1].base_url}/dicom-web/workitems", timeout=60)
    assert uid in listed.text
    page = requests.get(f"{pair[1].base_url}/ups/api/workitems/{uid}", timeout=60)
    assert page.status_code == 200 and "IN PROGRESS" in page.text


def _roles(node: RealOrthanc) -> list[str]:
    """Nodes that are gone are listed until they have been quiet for a while."""
    listed = requests.get(f"{node.base_url}/ups/api/nodes", timeout=60).json()
    return [entry["role"] for entry in listed["nodes"]]


def test_every_node_lists_the_nodes_with_their_roles(pair: Pair) -> None:
    for node in pair:
        wait_until(lambda: _roles(node) == ["leader", "standby"], node.log_tail, 60)  # noqa: B023
        listed = requests.get(f"{node.base_url}/ups/api/nodes", timeout=60).json()
        assert listed["nodes"][0]["name"] == pair[0].configuration["Name"]
        assert listed["epoch"] >= 1 and 0 < listed["lease"] <= LEASE


def test_the_overview_at_a_standby_says_so(pair: Pair) -> None:
    """It is that of the leader, where nothing is wrong while another node could take over."""
    leader, standby = pair
    wait_until(lambda: _roles(leader) == ["leader", "standby"], leader.log_tail)
    warnings = [
        [
            warning["text"]
            for warning in requests.get(f"{node.base_url}/ups/api/overview", timeout=60).json()["warnings"]
        ]
        for node in pair
    ]
    assert not any("on standby" in text for text in warnings[0])
    name = leader.configuration["Name"]
    assert f"This Orthanc is on standby: {name} leads the worklist and answers requests." in warnings[1]
    client(standby).create()
    file = requests.get(f"{standby.base_url}/ups/api/workitems.csv", timeout=60)
    assert file.content.count(b"\r\n") == 1 + int(file.headers["X-UPS-Lines"]) > 1


def warnings_of(node: RealOrthanc) -> list[str]:
    overview = requests.get(f"{node.base_url}/ups/api/overview", timeout=60).json()
    return [warning["text"] for warning in overview["warnings"]]


def test_a_leader_whose_standbys_are_gone_warns_of_it(pair: Pair) -> None:
    leader, standby = pair
    assert standby.stop() == 0
    wait_until(lambda: ALONE in warnings_of(leader), lambda: str(warnings_of(leader)), FAILOVER)
    standby.launch()
    stands_by(standby)
    wait_until(lambda: ALONE not in warnings_of(leader), lambda: str(warnings_of(leader)), FAILOVER)


def test_a_standby_answers_dimse_as_the_leader_does(pair: Pair) -> None:
    with UpsClient(pair[1].ups_dicom_port) as scu, UpsClient(pair[0].ups_dicom_port) as at_leader:
        assert scu.echo().code == 0
        created = scu.create(workitems.minimal())
        assert created.code == 0
        assert scu.get(created.uid).code == 0
        assert scu.change_state(created.uid, "IN PROGRESS", "2.25.815").code == 0
        assert at_leader.change_state(created.uid, "IN PROGRESS", "2.25.816").code == 0xC301
        matches = scu.find({tags.SOP_INSTANCE_UID: element("UI", created.uid), tags.STATE: {"vr": "CS"}})
        assert [text(match.attributes, tags.STATE) for match in matches if match.attributes] == [
            "IN PROGRESS"
        ]
        assert scu.get("2.25.1").code == 0xC307


def test_a_standby_uses_a_connection_to_the_leader_again(pair: Pair) -> None:
    """One for each request would wait for a while to be closed, and with many requests the leader would be full."""
    leader, standby = pair
    web, uid = client(standby), client(leader).create()
    with UpsClient(standby.ups_dicom_port) as scu:
        assert scu.get(uid).code == 0 and web.retrieve(uid)
        before = descriptors(leader)
        for _ in range(40):
            assert scu.get(uid).code == 0 and web.retrieve(uid)
        assert descriptors(leader) < before + 20


def descriptors(node: RealOrthanc) -> int:
    """The number of files and connections that an Orthanc has open."""
    return len(os.listdir(f"/proc/{node.pid}/fd"))


def test_f_7_2_a_modality_performs_at_a_standby_what_its_worklist_there_says(pair: Pair) -> None:
    leader, standby = pair
    study = element("UI", modality.STUDY)
    attributes = workitems.minimal(t00100020=element("LO", "STANDBY1"), t0020000D=study)
    uid = client(leader).create(attributes)
    step = "ScheduledProcedureStepSequence[0].ScheduledProcedureStepID"
    [answer] = findscu_worklist(standby.dicom_port, ["PatientID=STANDBY1", step], calling="SCU")
    [scheduled] = answer.ScheduledProcedureStepSequence
    number = element("SH", str(scheduled.ScheduledProcedureStepID))
    with ModalityClient(standby.ups_dicom_port, "SCU") as performer:
        begun = modality.begun(modality.scheduled(t00400009=number), t00100020=element("LO", "STANDBY1"))
        assert performer.begin("2.25.601", begun).code == 0
        assert state_of(client(leader), uid) == "IN PROGRESS"
        assert performer.begin("2.25.601", begun).code == 0x0111
        assert performer.report("2.25.601", modality.ended()).code == 0
        assert text(performer.retrieve("2.25.601").attributes, "00400252") == "COMPLETED"
    assert state_of(client(leader), uid) == "COMPLETED"


def test_a_rule_fires_once_whichever_node_received_the_images(pair: Pair) -> None:
    for number, node in enumerate(pair, 1):
        by_rest(node, image(PatientID=f"RULE{number}"))
    web = client(pair[0])

    def ruled() -> list[str]:
        listed = web.get("/workitems", params={"WorklistLabel": "RULED"})
        matches = listed.json() if listed.status_code == 200 else []
        return sorted(text(match, tags.LABEL) for match in matches)

    wait_until(lambda: len(ruled()) >= 2, lambda: f"both are ruled: {ruled()}")
    assert ruled() == ["Read RULE1", "Read RULE2"]


def test_a_standby_turns_away_whom_its_own_orthanc_does_not_know(pair: Pair) -> None:
    with pytest.raises(NoAssociation), UpsClient(pair[1].ups_dicom_port, calling="STRANGER") as scu:
        assert scu.create(workitems.minimal()).code == 0x0124
        raise NoAssociation("it may associate to echo, and nothing else")


def test_a_socket_at_a_standby_hears_what_the_leader_commits(pair: Pair) -> None:
    leader, standby = map(client, pair)
    uid = leader.create()
    assert standby.post(f"/workitems/{uid}/subscribers/LISTENER").status_code == 201
    with standby.socket("LISTENER") as socket:
        leader.claim(uid)
        states = []
        while "IN PROGRESS" not in states:
            states.append(text(next_event(socket), tags.STATE))


def test_when_the_leader_is_killed_the_other_goes_on_with_all_of_it(pair: Pair) -> None:
    leader, standby = pair
    web = client(leader)
    uids = [web.create() for _ in range(20)]
    transaction = web.claim(uids[0])
    leader.kill()
    leads(standby, FAILOVER)
    successor = client(standby)
    assert [state_of(successor, uid) for uid in uids] == ["IN PROGRESS"] + ["SCHEDULED"] * 19
    assert transaction
    assert successor.create()
    leader.launch()
    stands_by(leader)
    assert state_of(client(leader), uids[1]) == "SCHEDULED"


def test_a_node_that_was_away_can_tell_what_receivers_heard_meanwhile(pair: Pair) -> None:
    """``?since=`` goes on over a failover without gap, also behind the time of its absence."""
    leader, standby = pair
    web = client(leader)
    assert web.post("/workitems/1.2.840.10008.5.1.4.34.5/subscribers/LATER").status_code == 201
    assert standby.stop() == 0
    with web.socket("LATER") as socket:
        uid = web.create()
        hears(socket, uid, "SCHEDULED")
        web.complete(uid)  # the first event is not in the stored workitem any more
        hears(socket, uid, "COMPLETED")
    standby.launch()
    is_warm(standby)
    leader.kill()
    leads(standby, FAILOVER)
    with client(standby).socket("LATER", since=0) as socket:
        hears(socket, uid, "SCHEDULED")
        hears(socket, uid, "COMPLETED")


def hears(socket: ClientConnection, uid: str, state: str) -> None:
    """Wait for an event of the workitem in this state."""
    event = ""
    while uid not in event or state not in event:
        event = str(next_event(socket))


def test_a_leader_that_was_paused_stands_by_when_it_wakes_up(pair: Pair) -> None:
    """A socket that was relayed to it is closed meanwhile, so that its client comes back and misses nothing."""
    leader, standby = pair
    uid = client(leader).create()
    with client(standby).socket("SLEEPER") as socket:
        os.kill(leader.pid, signal.SIGSTOP)
        try:
            leads(standby, FAILOVER)
            client(standby).claim(uid)
            with pytest.raises(ConnectionClosed):
                socket.recv(FAILOVER)
        finally:
            os.kill(leader.pid, signal.SIGCONT)
    stands_by(leader, FAILOVER)
    assert health(standby) == ("open", "leader")
    assert state_of(client(leader), uid) == state_of(client(standby), uid) == "IN PROGRESS"


def test_a_leader_that_stops_hands_over_and_nobody_hears_of_a_restart(pair: Pair) -> None:
    leader, standby = pair
    with client(standby).socket("WATCHER") as socket:
        subscribed = client(leader).post("/workitems/1.2.840.10008.5.1.4.34.5/subscribers/WATCHER")
        assert subscribed.status_code == 201
        assert leader.stop() == 0
        with pytest.raises(Exception, match=r"1012|1001|closed|received"):
            while True:
                assert "GOING DOWN" not in str(next_event(socket, FAILOVER))
    leads(standby, FAILOVER)
    web = client(standby)
    with web.socket("WATCHER") as socket:
        uid = web.create()
        event = next_event(socket)
        while tags.STATE not in event or event.get("00001000", {}).get("Value") != [uid]:
            assert "RESTARTED" not in str(event)
            event = next_event(socket)


def test_without_postgresql_nobody_leads_and_requests_are_refused_until_it_is_back(
    pair: Pair, cluster: list[RealOrthanc], database: PostgreSql
) -> None:
    uid = client(pair[0]).create()
    readings = [node.log_text().count(READ_AGAIN) for node in cluster]
    database.stop()
    wait_until(
        lambda: roles(cluster) == ["no leader"] * 2, lambda: f"nobody leads: {roles(cluster)}", FAILOVER
    )
    refused = client(pair[1]).get(f"/workitems/{uid}")
    assert refused.status_code == 503 and refused.headers["Retry-After"]
    database.start()
    wait_until(
        lambda: roles(cluster) == ["leader", "standby"],
        lambda: "\n".join([f"one leads: {roles(cluster)}", *(node.log_tail() for node in cluster)]),
    )
    assert [state_of(client(node), uid) for node in pair] == ["SCHEDULED"] * 2
    assert [node.log_text().count(READ_AGAIN) for node in cluster] == readings  # contents were compared


def test_who_may_not_make_the_table_is_told_what_to_grant_and_takes_turns(
    suite: str, database: PostgreSql, tmp_path: Path
) -> None:
    database.execute("DROP DATABASE IF EXISTS other", "DROP ROLE IF EXISTS poor")
    database.execute("CREATE DATABASE other", "CREATE ROLE poor LOGIN")
    section = {**database.section(), "Database": "other"}
    index = str(tmp_path / "not" / "made yet")  # Orthanc makes it only for SQLite
    settings = {
        "IndexDirectory": index,
        "PostgreSQL": section,
        "Ups": {"Cluster": {"Database": database.address("other", "poor")}},
    }
    with nodes(suite, tmp_path, database, 2, overrides=settings) as (first, second):
        first.start(120)
        first.logs("GRANT CREATE ON SCHEMA public TO poor")
        second.launch()
        second.logs("another node holds the worklist on this database")
        stands_by(second)
        assert first.stop() == 0
        wait_until(lambda: health(second)[0] == "open", second.log_tail)
