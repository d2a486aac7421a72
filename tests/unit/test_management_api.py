# SPDX-License-Identifier: AGPL-3.0-or-later
"""The management API over fakes: what an operator reads, and that every action is a command of the worklist."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.commands import Close, Create, ReleaseLock, RequestCancel, Requester
from orthanc_ups.core.dataset import element
from orthanc_ups.core.events import EventType
from orthanc_ups.core.states import State
from orthanc_ups.core.workitem import Subscription
from orthanc_ups.templates import read_templates
from orthanc_ups.wires.management.api import ManagementApi, Ports
from orthanc_ups.wires.web_request import WebRequest
from orthanc_ups.wires.web_response import WebResponse
from tests.support.fake_management import (
    FakeClock,
    FakeDesk,
    FakeDimse,
    FakeModalities,
    FakeOrthanc,
    FakeWorklist,
    activity,
    dead_letter,
    endpoint_report,
    facts,
)
from tests.support.workitems import full, minimal, uid

JSON = {"content-type": "application/json"}


@dataclass
class Desk:
    """The API with its fakes."""

    clock: FakeClock = field(default_factory=FakeClock)
    delivery: FakeDesk = field(default_factory=FakeDesk)
    orthanc: FakeOrthanc = field(default_factory=FakeOrthanc)
    templates: list[Any] = field(default_factory=list)
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.worklist = FakeWorklist(self.clock)
        self.activity = activity(self.worklist, self.clock)
        self.api = ManagementApi(
            Ports(
                self.worklist,
                self.worklist,
                self.delivery,
                FakeDimse(),
                self.orthanc,
                FakeModalities(),
                self.activity,
                self.clock,
                facts(templates=read_templates(self.templates), warnings=self.warnings),
            )
        )

    def answer(
        self,
        method: str,
        path: str,
        content: Any = None,
        *,
        query: str = "",
        headers: dict[str, str] | None = None,
    ) -> WebResponse:
        body = b"" if content is None else json.dumps(content).encode()
        request = WebRequest(method, path, query, JSON if headers is None else headers, body, user="anna")
        return asyncio.run(self.api.answer(request))

    def ask(self, method: str, path: str, content: Any = None, **more: Any) -> Any:
        """The content of an answer that must be a success."""
        found = self.answer(method, path, content, **more)
        assert found.status == 200, found.body
        return json.loads(found.body)

    def refused(self, status: int, method: str, path: str, content: Any = None, **more: Any) -> Any:
        """The content of an answer that must be an error."""
        found = self.answer(method, path, content, **more)
        assert found.status == status, found.body
        return json.loads(found.body)

    def have(self, number: int = 1, attributes: Any = None) -> str:
        """Put a workitem into the worklist."""
        requester = Requester("RIS", "DIMSE")
        asyncio.run(self.worklist.execute(Create(requester, uid(number), attributes or minimal())))
        return uid(number)


@pytest.fixture
def desk() -> Desk:
    return Desk()


# --- reading ---


def test_a_page_has_rows_in_the_asked_order_and_the_total(desk: Desk) -> None:
    for number, priority in enumerate(("LOW", "HIGH", "MEDIUM"), 1):
        desk.have(number, minimal(t00741200=element("CS", priority)))
    page = desk.ask("GET", "/workitems", query="order=priority&limit=2")
    assert (page["total"], page["offset"]) == (3, 0)
    assert [row["priority"] for row in page["workitems"]] == ["HIGH", "MEDIUM"]


def test_a_row_says_what_an_operator_looks_for(desk: Desk) -> None:
    desk.have(1, full("japanese"))
    row = desk.ask("GET", "/workitems")["workitems"][0]
    assert row["patient"]["name"] == "Aokawa, Haruka (青川 春香, あおかわ はるか)"
    assert row["stations"] == ["Station READING7", "Station READING8"]
    assert row["start"] == "2026-11-22T18:30:00Z"
    assert row["expected"] == "2026-11-22T18:30:00Z"  # 19:30 +0100
    assert row["state"] == "SCHEDULED"
    assert row["progress"] == {"percent": None, "description": ""}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("PatientName=fair*", 1),
        ("PatientName=nobody*", 0),
        ("ProcedureStepState=SCHEDULED,IN%20PROGRESS", 1),
        ("ProcedureStepState=COMPLETED", 0),
        ("ScheduledStationNameCodeSequence.CodeValue=READING8", 1),
        ("ScheduledProcedureStepStartDateTime=20261122-", 1),
        ("ScheduledProcedureStepStartDateTime=-20261121", 0),
        ("ReferencedRequestSequence.AccessionNumber=A-4712", 1),
        ("text=ines+second", 1),
        ("text=A-4711", 1),
        ("text=ines+zzz", 0),
        ("study=1.2.826.0.1.3680043.10.1999.1.2", 1),  # only an input is of this study
    ],
)
def test_the_list_is_filtered_by_keys_and_free_text(desk: Desk, query: str, found: int) -> None:
    desk.have(1, full())
    assert desk.ask("GET", "/workitems", query=query)["total"] == found


def test_every_required_matching_key_is_in_the_vocabulary_and_is_taken(desk: Desk) -> None:
    names = [one["name"] for one in desk.ask("GET", "/system")["filters"]]
    assert len(names) == len(set(names)) > 40
    samples = {"DT": "20260101", "DA": "20260101", "UI": "1.2.3"}
    for one in desk.ask("GET", "/system")["filters"]:
        value = {"datetime": samples["DT"], "date": samples["DA"], "uid": samples["UI"]}.get(one["kind"], "X")
        assert desk.ask("GET", "/workitems", query=f"{one['name']}={value}")["total"] == 0


def test_a_name_that_is_no_key_is_refused_by_name(desk: Desk) -> None:
    refusal = desk.refused(400, "GET", "/workitems", query="PatientShoeSize=9")
    assert "PatientShoeSize" in refusal["error"]


def test_a_malformed_value_names_its_attribute(desk: Desk) -> None:
    refusal = desk.refused(400, "GET", "/workitems", query="ScheduledProcedureStepStartDateTime=yesterday")
    assert refusal["attribute"] == "ScheduledProcedureStepStartDateTime"
    assert refusal["status"] == "IDENTIFIER_MISMATCH"


@pytest.mark.parametrize("query", ["limit=0", "limit=9999", "limit=-1", "offset=x", "order=shoes"])
def test_nonsense_about_the_page_is_refused(desk: Desk, query: str) -> None:
    desk.refused(400, "GET", "/workitems", query=query)


def test_csv_has_all_matches_and_no_formula(desk: Desk) -> None:
    desk.have(1, minimal(t00741204=element("LO", '=HYPERLINK("http://x")')))
    desk.have(2)
    answer = desk.answer("GET", "/workitems.csv", query="order=created")
    lines = answer.body.decode("utf-8-sig").splitlines()
    assert len(lines) == 3
    assert "\"'=HYPERLINK" in lines[1]
    assert answer.header("Content-Disposition") == 'attachment; filename="workitems.csv"'


def test_one_workitem_is_told_in_readable_groups(desk: Desk) -> None:
    found = desk.ask("GET", f"/workitems/{desk.have(1, full())}")
    groups = {group["name"]: group["attributes"] for group in found["groups"]}
    assert list(groups)[:2] == ["Scheduling", "Patient and request"]
    station = next(
        one for one in groups["Scheduling"] if one["keyword"] == "ScheduledStationNameCodeSequence"
    )
    assert station["items"][0]["code"] == {
        "meaning": "Station READING7",
        "value": "READING7",
        "scheme": "99STATIONS",
    }
    start = next(one for one in groups["Scheduling"] if one["tag"] == tags.START)
    assert (start["name"], start["times"]) == (
        "Scheduled Procedure Step Start DateTime",
        ["2026-11-22T18:30:00Z"],
    )
    assert found["inputs"][0]["sources"] == ["ARCHIVE"]
    assert found["history"] == [{"at": "2026-11-22T18:30:00.000Z", "who": "RIS by DIMSE", "what": "created"}]


def test_the_transaction_uid_is_nowhere_to_be_read(desk: Desk) -> None:
    found = desk.have()
    desk.ask("POST", f"/workitems/{found}/claim", {})
    told = desk.answer("GET", f"/workitems/{found}").body.decode()
    assert "00081195" not in told
    assert "TransactionUID" not in told
    assert "2.25.1001" not in told


def test_an_unknown_workitem_is_404(desk: Desk) -> None:
    assert desk.refused(404, "GET", "/workitems/1.2.3")["status"] == "NO_SUCH_WORKITEM"


# --- creating ---


def test_a_few_plain_values_make_a_workitem(desk: Desk) -> None:
    made = desk.ask(
        "POST", "/workitems", {"attributes": {"ProcedureStepLabel": "Check", "PatientName": "Doe^Jane"}}
    )
    stored = desk.worklist.workitems[made["uid"]].attributes
    assert stored[tags.PATIENT_NAME] == element("PN", {"Alphabetic": "Doe^Jane"})
    assert stored[tags.START]["Value"] == ["20261122183000.000000+0000"]
    assert stored["00404025"] == element("SQ")


def test_the_history_names_the_operator(desk: Desk) -> None:
    made = desk.ask("POST", "/workitems", {"attributes": {"ProcedureStepLabel": "Check"}})
    assert desk.worklist.workitems[made["uid"]].history[0].who == "anna as UPSWORKLIST by page"


def test_what_the_rules_refuse_names_the_attribute(desk: Desk) -> None:
    refusal = desk.refused(400, "POST", "/workitems", {"attributes": {"PatientID": "7"}})
    assert refusal["attribute"] == "ProcedureStepLabel"
    assert refusal["status"] == "MISSING_ATTRIBUTE"
    assert not desk.worklist.workitems


@pytest.mark.parametrize(
    ("attributes", "word"),
    [
        ({"PatientShoeSize": 9}, "PatientShoeSize"),
        ({"ProcedureStepLabel": {"a": 1}}, "ProcedureStepLabel"),
        ({"ProcedureStepLabel": "x", "PatientName": 7}, "PatientName"),
        (
            {"ProcedureStepLabel": "x", "ScheduledWorkitemCodeSequence": "code"},
            "ScheduledWorkitemCodeSequence",
        ),
        ({"ProcedureStepLabel": "x", "ScheduledProcedureStepPriority": "URGENT"}, "Priority"),
    ],
)
def test_wrong_attributes_are_named(desk: Desk, attributes: Any, word: str) -> None:
    assert word in desk.refused(400, "POST", "/workitems", {"attributes": attributes})["error"]


def test_performers_need_only_a_name_and_their_organization(desk: Desk) -> None:
    person = {"HumanPerformerName": "Reader^Rita", "HumanPerformerOrganization": "Harbour Clinic"}
    attributes = {"ProcedureStepLabel": "x", "ScheduledHumanPerformersSequence": [person]}
    made = desk.ask("POST", "/workitems", {"attributes": attributes})
    row = desk.ask("GET", "/workitems")["workitems"][0]
    assert row["uid"] == made["uid"]
    assert row["performers"] == ["Reader, Rita"]


TEMPLATE = {
    "Name": "Second reading",
    "Attributes": {
        "ProcedureStepLabel": {"Default": "Second reading", "Fixed": True},
        "ScheduledProcedureStepPriority": {"Choices": ["HIGH", "LOW"], "Default": "LOW"},
        "ScheduledProcedureStepExpirationDateTime": {"Default": "now+2h"},
        "PatientID": {"Required": True},
    },
}


def test_a_template_gives_defaults_for_now() -> None:
    shown = Desk(templates=[TEMPLATE]).ask("GET", "/templates")["templates"]
    assert [one["name"] for one in shown] == ["Second reading", "Blank"]
    assert shown[0]["fields"]["ScheduledProcedureStepExpirationDateTime"]["default"] == "20261122203000+0000"
    assert shown[0]["fields"]["ScheduledProcedureStepPriority"]["choices"] == ["HIGH", "LOW"]


def test_a_workitem_from_a_template_keeps_what_is_fixed() -> None:
    desk = Desk(templates=[TEMPLATE])
    attributes = {"ProcedureStepLabel": "Mine", "PatientID": "P1"}
    made = desk.ask("POST", "/workitems", {"template": "Second reading", "attributes": attributes})
    stored = desk.worklist.workitems[made["uid"]].attributes
    assert stored[tags.LABEL]["Value"] == ["Second reading"]
    assert stored[tags.PRIORITY]["Value"] == ["LOW"]
    assert stored[tags.EXPIRATION]["Value"] == ["20261122203000+0000"]


def test_what_a_template_requires_must_be_given() -> None:
    desk = Desk(templates=[TEMPLATE])
    assert "PatientID" in desk.refused(400, "POST", "/workitems", {"template": "Second reading"})["error"]
    assert "Blank" in desk.refused(400, "POST", "/workitems", {"template": "Third"})["error"]


def study() -> FakeOrthanc:
    """A study of one patient with two series in Orthanc."""
    ids = {name: f"{number:08x}" + "-00000000" * 4 for number, name in enumerate(("p", "s", "a", "b"), 1)}
    patient = {
        "PatientName": "Doe^Jane",
        "PatientID": "P1",
        "PatientBirthDate": "19700101",
        "PatientSex": "F",
    }
    main = {"StudyInstanceUID": "1.2.1", "StudyDescription": "Thorax", "AccessionNumber": "A1"}
    resources: dict[str, Any] = {
        f"/patients/{ids['p']}": {"ID": ids["p"], "MainDicomTags": patient},
        f"/studies/{ids['s']}": {"ID": ids["s"], "ParentPatient": ids["p"], "MainDicomTags": main},
    }
    series = []
    for name in ("a", "b"):
        one = {
            "ID": ids[name],
            "ParentStudy": ids["s"],
            "MainDicomTags": {"Modality": "CT", "SeriesInstanceUID": f"1.2.2.{name == 'b':d}"},
            "Instances": ["x"],
        }
        series.append(one)
        resources[f"/series/{ids[name]}"] = one
        instance = {
            "ID": "x",
            "MainDicomTags": {"SOPInstanceUID": f"1.2.3.{name == 'b':d}"},
            "RequestedTags": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"},
        }
        resources[f"/series/{ids[name]}/instances?expand&requestedTags=SOPClassUID"] = [instance]
    resources[f"/studies/{ids['s']}/series"] = series
    return FakeOrthanc(resources)


STUDY = "00000002" + "-00000000" * 4
SERIES = "00000003" + "-00000000" * 4


def test_a_study_in_orthanc_fills_the_form_in_advance() -> None:
    found = Desk(orthanc=study()).ask("GET", "/prefill", query=f"level=study&id={STUDY}")
    assert found["attributes"]["PatientName"] == "Doe^Jane"
    assert found["attributes"]["ReferencedRequestSequence.AccessionNumber"] == "A1"
    assert [one["chosen"] for one in found["inputs"]] == [True, True]
    assert found["study"] == "1.2.1"


def test_of_a_series_only_it_is_chosen() -> None:
    found = Desk(orthanc=study()).ask("GET", "/prefill", query=f"level=series&id={SERIES}")
    assert [(one["id"] == SERIES, one["chosen"]) for one in found["inputs"]] == [(True, True), (False, False)]


def test_inputs_become_references_with_every_instance() -> None:
    desk = Desk(orthanc=study())
    prefill = desk.ask("GET", "/prefill", query=f"level=study&id={STUDY}")
    content = {
        "attributes": {**prefill["attributes"], "ProcedureStepLabel": "Read"},
        "inputs": [{"level": "study", "id": STUDY}],
    }
    made = desk.ask("POST", "/workitems", content)
    inputs = desk.ask("GET", f"/workitems/{made['uid']}")["inputs"]
    assert [(one["study"], one["series"], one["instance"]) for one in inputs] == [
        ("1.2.1", "1.2.2.0", "1.2.3.0"),
        ("1.2.1", "1.2.2.1", "1.2.3.1"),
    ]
    assert inputs[0]["sources"] == ["ORTHANC"]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("level=study&id=../../tools/shutdown", 400),
        ("level=shoe&id=x", 400),
        (f"level=study&id={'0' * 8 + '-00000000' * 4}", 404),
    ],
)
def test_only_resources_of_orthanc_can_be_asked_for(query: str, status: int) -> None:
    Desk(orthanc=study()).refused(status, "GET", "/prefill", query=query)


def test_links_point_into_the_viewers_that_are_there(desk: Desk) -> None:
    desk.orthanc.known["1.2.1"] = [("Study", STUDY)]
    links = desk.ask("GET", "/links", query="study=1.2.1")["links"]
    assert links == [{"name": "Orthanc Explorer", "url": f"app/explorer.html#study?uuid={STUDY}"}]
    assert desk.ask("GET", "/links", query="study=1.9")["links"] == []


# --- acting ---


def test_an_operator_updates_what_is_scheduled(desk: Desk) -> None:
    found = desk.have()
    desk.ask("PUT", f"/workitems/{found}", {"attributes": {"ScheduledProcedureStepPriority": "HIGH"}})
    assert desk.ask("GET", f"/workitems/{found}")["priority"] == "HIGH"


def test_an_update_in_progress_is_refused_in_words(desk: Desk) -> None:
    found = desk.have()
    desk.ask("POST", f"/workitems/{found}/claim", {})
    refusal = desk.refused(400, "PUT", f"/workitems/{found}", {"attributes": {"ProcedureStepLabel": "x"}})
    assert refusal["status"] == "MISSING_TRANSACTION_UID"


def test_the_actions_follow_the_state(desk: Desk) -> None:
    found = desk.have()
    def read() -> Any:
        return desk.ask("GET", f"/workitems/{found}")["actions"]

    assert read() == ["edit", "claim", "request-cancel"]
    desk.ask("POST", f"/workitems/{found}/claim", {})
    assert read() == ["complete", "cancel", "request-cancel"]
    desk.ask("POST", f"/workitems/{found}/complete", {})
    assert read() == ["purge"]


def test_claim_and_complete_on_behalf_need_no_transaction_uid(desk: Desk) -> None:
    found = desk.have(1, full())
    desk.ask("POST", f"/workitems/{found}/claim", {})
    desk.clock.pass_by(minutes=15)
    closing = desk.ask("GET", f"/workitems/{found}")["closing"]
    assert closing["PerformedProcedureStepStartDateTime"] == "20261122183000.000000+0000"
    assert closing["PerformedProcedureStepEndDateTime"] == "20261122184500.000000+0000"
    assert closing["PerformedStationNameCodeSequence"][0]["CodeValue"] == "READING7"
    desk.ask(
        "POST", f"/workitems/{found}/complete", {"performed": {"PerformedProcedureStepDescription": "Done"}}
    )
    workitem = desk.worklist.workitems[found]
    assert workitem.state is State.COMPLETED
    assert isinstance(desk.worklist.commands[-1], Close)
    assert workitem.attributes[tags.PERFORMED_PROCEDURE]["Value"][0]["00400254"]["Value"] == ["Done"]


def test_a_workitem_without_station_and_code_can_be_completed_too(desk: Desk) -> None:
    found = desk.have()
    desk.ask("POST", f"/workitems/{found}/claim", {})
    desk.ask("POST", f"/workitems/{found}/complete", {})
    done = desk.worklist.workitems[found].attributes[tags.PERFORMED_PROCEDURE]["Value"][0]
    assert done["00404028"]["Value"][0][tags.CODE_VALUE]["Value"] == ["UPSWORKLIST"]


def test_what_is_wrong_in_the_final_state_form_is_named(desk: Desk) -> None:
    found = desk.have()
    desk.ask("POST", f"/workitems/{found}/claim", {})
    refusal = desk.refused(
        409,
        "POST",
        f"/workitems/{found}/complete",
        {"performed": {"PerformedStationNameCodeSequence": []}},
    )
    assert refusal["status"] == "FINAL_STATE_UNMET"
    assert refusal["attribute"].endswith("PerformedStationNameCodeSequence")
    assert desk.worklist.workitems[found].state is State.IN_PROGRESS


REASON = {
    "reason": "Scanner is down",
    "code": {"CodeValue": "110501", "CodingSchemeDesignator": "DCM", "CodeMeaning": "Equipment failure"},
}


def test_a_cancellation_on_behalf_keeps_reason_and_progress(desk: Desk) -> None:
    found = desk.have()
    desk.ask("POST", f"/workitems/{found}/claim", {})
    desk.ask("POST", f"/workitems/{found}/cancel", REASON)
    workitem = desk.worklist.workitems[found]
    item = workitem.attributes[tags.PROGRESS_INFORMATION]["Value"][0]
    assert workitem.state is State.CANCELED
    assert item[tags.REASON_FOR_CANCELLATION]["Value"] == ["Scanner is down"]
    assert item[tags.DISCONTINUATION_REASONS]["Value"][0][tags.CODE_VALUE]["Value"] == ["110501"]


def test_a_request_for_cancellation_carries_reason_and_contact(desk: Desk) -> None:
    found = desk.have()
    desk.ask(
        "POST",
        f"/workitems/{found}/request-cancel",
        {**REASON, "contact_name": "Anna", "contact_uri": "tel:1"},
    )
    command = desk.worklist.commands[-1]
    assert isinstance(command, RequestCancel)
    assert command.information[tags.CONTACT_NAME]["Value"] == ["Anna"]
    assert desk.worklist.workitems[found].state is State.CANCELED


def test_nobody_can_be_asked_to_cancel_if_nobody_listens(desk: Desk) -> None:
    found = desk.have()
    desk.ask("POST", f"/workitems/{found}/claim", {})
    assert (
        desk.refused(409, "POST", f"/workitems/{found}/request-cancel", {})["status"]
        == "PERFORMER_UNREACHABLE"
    )


def test_only_a_final_workitem_is_purged(desk: Desk) -> None:
    found = desk.have()
    assert "SCHEDULED" in desk.refused(409, "DELETE", f"/workitems/{found}")["error"]
    desk.ask("POST", f"/workitems/{found}/request-cancel", {})
    desk.ask("DELETE", f"/workitems/{found}")
    assert not desk.worklist.workitems


def test_a_workitem_shows_who_is_subscribed_and_an_operator_releases_a_lock(desk: Desk) -> None:
    found = desk.have()
    desk.ask("PUT", f"/workitems/{found}/subscribers/AI", {"lock": True})
    told = desk.ask("GET", f"/workitems/{found}")["subscribers"]
    assert told == [{"ae": "AI", "lock": True, "specific": True}]
    desk.ask("DELETE", f"/workitems/{found}/subscribers/AI/lock")
    assert isinstance(desk.worklist.commands[-1], ReleaseLock)
    desk.refused(404, "DELETE", f"/workitems/{found}/subscribers/AI/lock")
    desk.ask("DELETE", f"/workitems/{found}/subscribers/AI")
    assert desk.ask("GET", f"/workitems/{found}")["subscribers"] == []


def test_an_ae_without_address_cannot_be_subscribed(desk: Desk) -> None:
    refusal = desk.refused(404, "PUT", f"/workitems/{desk.have()}/subscribers/NOBODY", {})
    assert refusal["status"] == "UNKNOWN_RECEIVING_AE"


# --- events and subscribers ---


def test_events_tell_to_whom_they_were_delivered_and_why_not(desk: Desk) -> None:
    for ae in ("AI", "RIS"):
        desk.ask("POST", f"/subscribers/{ae}/subscribe", {"scope": "global"})
    found = desk.have()
    event = desk.worklist.event_logs[found][0]
    desk.worklist.fates[event.sequence, "AI"] = "waiting"
    desk.delivery.reports = [endpoint_report("AI", pending=1, last_error="connection refused", retry_at=1e9)]
    told = desk.ask("GET", f"/workitems/{found}/events")["events"]
    assert (told[0]["type"], told[0]["summary"]) == (EventType.STATE_REPORT, "SCHEDULED, inputs READY")
    assert told[0]["receivers"] == [
        {"ae": "AI", "state": "waiting", "why": "connection refused", "retry": "2001-09-09T01:46:40.000Z"},
        {"ae": "RIS", "state": "delivered"},
    ]


def test_subscriptions_are_told_in_words(desk: Desk) -> None:
    wanted = {"ScheduledStationNameCodeSequence.CodeValue": "R7", "ProcedureStepState": "SCHEDULED"}
    desk.ask("POST", "/subscribers/AI/subscribe", {"scope": "filtered", "filter": wanted, "lock": True})
    desk.ask("POST", "/subscribers/RIS/subscribe", {"scope": "global"})
    found = {one["ae"]: one for one in desk.ask("GET", "/subscribers")["subscribers"]}
    assert found["AI"]["filters"][0]["words"] == "Station › Code Value is R7, and State is SCHEDULED"
    assert found["AI"]["filters"][0]["lock"] is True
    assert found["RIS"]["everything"] == {"lock": False}
    assert found["AI"]["everything"] is None


def test_what_was_suspended_can_be_resumed(desk: Desk) -> None:
    desk.ask("POST", "/subscribers/RIS/subscribe", {"scope": "global", "lock": True})
    desk.ask("POST", "/subscribers/RIS/suspend", {"scope": "global"})
    found = desk.ask("GET", "/subscribers/RIS")
    assert found["everything"] is None
    assert [(one["scope"], one["lock"]) for one in found["suspended"]] == [("global", True)]
    desk.ask("POST", "/subscribers/RIS/subscribe", {"scope": "global", "lock": True})
    assert desk.ask("GET", "/subscribers/RIS")["suspended"] == []


def test_a_filter_must_be_one(desk: Desk) -> None:
    content = {"scope": "filtered", "filter": {"PatientShoeSize": "9"}}
    assert "PatientShoeSize" in desk.refused(400, "POST", "/subscribers/AI/subscribe", content)["error"]
    desk.refused(400, "POST", "/subscribers/AI/subscribe", {"scope": "everything"})


def test_an_ae_lists_the_workitems_that_it_subscribed_to(desk: Desk) -> None:
    found = desk.have()
    desk.ask("POST", "/subscribers/AI/subscribe", {"scope": "workitem", "uid": found, "lock": True})
    told = desk.ask("GET", "/subscribers/AI")
    assert (told["specific"], told["locks"]) == (1, 1)
    assert told["workitems"] == [{"uid": found, "lock": True}]
    desk.ask("POST", "/subscribers/AI/unsubscribe", {"scope": "workitem", "uid": found})
    assert desk.ask("GET", "/subscribers/AI")["workitems"] == []
    assert desk.worklist.workitems[found].acts["AI"].state is Subscription.NONE


@pytest.mark.parametrize(
    ("changes", "health"),
    [
        ({}, "idle"),
        ({"last_success_at": 5.0}, "good"),
        ({"pending": 3, "last_success_at": 5.0}, "good"),
        ({"pending": 3, "last_error": "refused", "last_error_at": 9.0, "last_success_at": 5.0}, "trouble"),
        ({"serving": False}, "unreachable"),
        ({"serving": False, "durable": False}, "idle"),
    ],
)
def test_health_is_a_word(desk: Desk, changes: Any, health: str) -> None:
    desk.delivery.reports = [endpoint_report("AI", **changes)]
    channels = desk.ask("GET", "/subscribers")["subscribers"][0]["channels"]
    assert channels[0]["health"] == health


def test_the_operator_steers_delivery(desk: Desk) -> None:
    desk.delivery.reports = [endpoint_report("AI", pending=3, dead_letters=1)]
    desk.delivery.letters = [dead_letter("AI", 7, 5.0)]
    assert desk.ask("POST", "/subscribers/AI/retry", {}) == {"pending": 3}
    assert desk.ask("POST", "/subscribers/AI/drop", {"sequences": [1, 2]}) == {"dropped": 3}
    desk.ask("POST", "/subscribers/AI/resend", {"first": 3, "last": 9})
    assert desk.ask("POST", "/subscribers/AI/test-event", {}) == {"channels": 1}
    letters = desk.ask("GET", "/subscribers/AI/dead-letters")
    assert letters["total"] == 1
    assert letters["letters"][0]["reason"] == "connection refused"
    assert desk.ask("POST", "/subscribers/AI/dead-letters/resend", {}) == {"resent": 1}
    assert desk.ask("POST", "/subscribers/AI/dead-letters/drop", {"sequences": [7]}) == {"dropped": 1}
    assert desk.delivery.done == [
        ("retry", "AI"),
        ("drop", "AI", [1, 2]),
        ("resend", "AI", 3, 9),
        ("test", "AI"),
        ("resend dead", "AI", None),
        ("drop dead", "AI", [7]),
    ]


@pytest.mark.parametrize("content", [{}, {"first": 9, "last": 3}, {"first": True, "last": 3}, {"first": "1"}])
def test_a_range_must_be_one(desk: Desk, content: Any) -> None:
    desk.refused(400, "POST", "/subscribers/AI/resend", content)
    assert desk.delivery.done == []


def test_an_echo_says_how_long_it_took_or_why_not(desk: Desk) -> None:
    assert desk.ask("POST", "/subscribers/RIS/echo", {}) == {"seconds": 0.004}
    refusal = desk.refused(502, "POST", "/subscribers/AI/echo", {})
    assert refusal == {"error": "AI refused the connection", "status": "UNREACHABLE", "attribute": None}


# --- overview ---


def test_counts_are_by_state_and_by_worklist(desk: Desk) -> None:
    desk.have(1)
    desk.have(2, full())
    desk.ask("POST", f"/workitems/{uid(2)}/claim", {})
    found = desk.ask("GET", "/counts")
    assert found["states"] == {"SCHEDULED": 1, "IN PROGRESS": 1, "COMPLETED": 0, "CANCELED": 0}
    assert found["worklists"] == [
        {"worklist": "DEFAULT", "states": {"SCHEDULED": 1}},
        {"worklist": "SECOND READS", "states": {"IN PROGRESS": 1}},
    ]


def test_charts_count_what_went_on(desk: Desk) -> None:
    desk.have(1)
    desk.ask("GET", "/overview")
    desk.clock.pass_by(minutes=2)
    desk.have(2)
    desk.have(3)
    report = endpoint_report("AI")
    desk.activity.delivered(report.endpoint, None, 0.03)  # type: ignore[arg-type]
    hour = desk.ask("GET", "/overview")["charts"]["hour"]
    assert hour["created"][-3:] == [1, 0, 2]
    assert len(hour["created"]) == 60
    assert (hour["delivered"][-1], hour["latency"]["median"][-1]) == (1, 0.05)


def test_warnings_say_in_words_what_needs_a_person() -> None:
    desk = Desk(warnings=("AllowThreads is off.",))
    desk.delivery.reports = [
        endpoint_report("LOST", serving=False, pending=2),
        endpoint_report("SLOW", pending=90_000, oldest_at=0.0, last_error="connection refused"),
        endpoint_report("DEAD", dead_letters=4),
        endpoint_report("FINE", last_success_at=1.0),
    ]
    warnings = desk.ask("GET", "/overview")["warnings"]
    told = "\n".join(warnings)
    assert warnings[0] == "AllowThreads is off."
    assert "2 events wait for LOST, but nobody knows its address" in told
    assert "nearly full: 90000 of 100000" in told
    assert "DEAD has 4 dead letters" in told
    assert "FINE" not in told


def test_a_jump_of_the_clock_is_noticed() -> None:
    desk = Desk()
    steady = iter((0.0, 10.0, 20.0))
    desk.activity._monotonic = lambda: next(steady)
    desk.activity._offset = desk.clock.now().timestamp() - next(steady)
    desk.clock.pass_by(minutes=-10)
    assert "jumped back by 10 minutes" in desk.ask("GET", "/overview")["warnings"][0]


def test_the_page_polls_for_what_changed(desk: Desk) -> None:
    start = desk.ask("GET", "/changes", query="since=0")
    found = desk.have()
    news = desk.ask("GET", "/changes", query=f"since={start['number']}")
    assert news["uids"] == [found]
    assert news["complete"] is True
    assert desk.ask("GET", "/changes", query=f"since={news['number']}")["uids"] == []
    assert desk.ask("GET", "/changes", query="since=99999")["complete"] is False
    desk.refused(400, "GET", "/changes", query="since=x")


# --- HTTP ---


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("DELETE", "/workitems", 405), ("POST", "/system", 405), ("GET", "/", 404)],
)
def test_unknown_paths_and_methods(desk: Desk, method: str, path: str, status: int) -> None:
    desk.refused(status, method, path, {} if method == "POST" else None)


@pytest.mark.parametrize("body", [b"{", b"[]", b"7", b'{"attributes": []}', b'{"attributes": {}, "uid": 5}'])
def test_a_body_must_be_an_object_of_the_right_shape(desk: Desk, body: bytes) -> None:
    answer = asyncio.run(desk.api.answer(WebRequest("POST", "/workitems", headers=JSON, body=body)))
    assert answer.status == 400
    assert not desk.worklist.workitems


def test_a_deeply_nested_body_is_refused(desk: Desk) -> None:
    nested: dict[str, Any] = {}
    for _ in range(300):
        nested = {"ScheduledWorkitemCodeSequence": [nested]}
    assert "deeply" in desk.refused(400, "POST", "/workitems", {"attributes": nested})["error"]


def test_a_page_of_another_site_cannot_act(desk: Desk) -> None:
    found = desk.have()
    path = f"/workitems/{found}/claim"
    desk.refused(415, "POST", path, {}, headers={"content-type": "text/plain"})
    desk.refused(403, "POST", path, {}, headers={**JSON, "sec-fetch-site": "cross-site"})
    assert desk.worklist.workitems[found].state is State.SCHEDULED


def test_a_fault_of_ours_is_an_answer_without_details(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> Any:
        raise RuntimeError("secret")

    desk.worklist.counts = fail  # type: ignore[method-assign]
    refusal = desk.refused(500, "GET", "/counts")
    assert "secret" not in refusal["error"]
    assert "secret" in caplog.text


def test_answers_are_not_kept_by_browsers(desk: Desk) -> None:
    assert desk.answer("GET", "/system").header("Cache-Control") == "no-store"
