# SPDX-License-Identifier: AGPL-3.0-or-later
"""Subscribers, deliveries and the overview."""

from __future__ import annotations

from typing import Any

import pytest

from orthanc_ups.core.events import EventType
from orthanc_ups.core.workitem import Subscription
from orthanc_ups.projection.projection import ProjectionBroken
from tests.support.fake_management import dead_letter, endpoint_report
from tests.support.management_rig import ManagementRig
from tests.support.workitems import full, uid


@pytest.fixture
def rig() -> ManagementRig:
    return ManagementRig()


def test_events_tell_to_whom_they_were_delivered_and_why_not(rig: ManagementRig) -> None:
    for ae in ("AI", "RIS"):
        rig.ask("POST", f"/subscribers/{ae}/subscribe", {"scope": "global"})
    uid = rig.have()
    event = rig.worklist.event_logs[uid][0]
    rig.worklist.fates[event.sequence, "AI"] = "waiting"
    rig.delivery.reports = [endpoint_report("AI", pending=1, last_error="connection refused", retry_at=1e9)]
    events = rig.ask("GET", f"/workitems/{uid}/events")["events"]
    assert (events[0]["type"], events[0]["summary"]) == (EventType.STATE_REPORT, "SCHEDULED, inputs READY")
    assert events[0]["receivers"] == [
        {"ae": "AI", "state": "waiting", "why": "connection refused", "retry": "2001-09-09T01:46:40.000Z"},
        {"ae": "RIS", "state": "delivered"},
    ]


def test_a_dead_letter_tells_why_it_was_given_up_and_not_when_it_is_tried_again(rig: ManagementRig) -> None:
    rig.ask("POST", "/subscribers/AI/subscribe", {"scope": "global"})
    uid = rig.have()
    event = rig.worklist.event_logs[uid][0]
    rig.worklist.fates[event.sequence, "AI"] = "dead"
    rig.delivery.reports = [endpoint_report("AI", pending=1, last_error="connection refused", retry_at=1e9)]
    rig.delivery.letters = [dead_letter("AI", event.sequence, reason="not delivered within 7 days")]

    def receivers() -> Any:
        return rig.ask("GET", f"/workitems/{uid}/events")["events"][0]["receivers"]

    dead = {"ae": "AI", "state": "dead", "retry": None}
    assert receivers() == [{**dead, "why": "not delivered within 7 days"}]
    rig.delivery.letters = []
    assert receivers() == [{**dead, "why": "it was given up"}]


def test_subscriptions_are_told_in_words(rig: ManagementRig) -> None:
    keys = {"ScheduledStationNameCodeSequence.CodeValue": "R7", "ProcedureStepState": "SCHEDULED"}
    rig.ask("POST", "/subscribers/AI/subscribe", {"scope": "filtered", "filter": keys, "lock": True})
    rig.ask("POST", "/subscribers/RIS/subscribe", {"scope": "global"})
    result = {subscriber["ae"]: subscriber for subscriber in rig.ask("GET", "/subscribers")["subscribers"]}
    assert result["AI"]["filters"][0]["words"] == "Station is R7, and State is SCHEDULED"
    assert result["AI"]["filters"][0]["lock"] is True
    assert result["RIS"]["everything"] == {"lock": False}
    assert result["AI"]["everything"] is None


def test_what_was_suspended_can_be_resumed(rig: ManagementRig) -> None:
    rig.ask("POST", "/subscribers/RIS/subscribe", {"scope": "global", "lock": True})
    rig.ask("POST", "/subscribers/RIS/suspend", {"scope": "global"})
    answer = rig.ask("GET", "/subscribers/RIS")
    assert answer["everything"] is None
    assert [(row["scope"], row["lock"]) for row in answer["suspended"]] == [("global", True)]
    rig.ask("POST", "/subscribers/RIS/subscribe", {"scope": "global", "lock": True})
    assert rig.ask("GET", "/subscribers/RIS")["suspended"] == []


def test_a_filter_must_be_one(rig: ManagementRig) -> None:
    content = {"scope": "filtered", "filter": {"PatientShoeSize": "9"}}
    assert "PatientShoeSize" in rig.refused(400, "POST", "/subscribers/AI/subscribe", content)["error"]
    rig.refused(400, "POST", "/subscribers/AI/subscribe", {"scope": "everything"})


def test_a_key_of_a_filter_that_would_be_ignored_is_refused(rig: ManagementRig) -> None:
    codes = {"ScheduledStationNameCodeSequence": [{"CodeValue": "CT1", "Manufacturer": "ACME"}]}
    for keys in ({"Manufacturer": "ACME", **codes}, codes):
        content = {"scope": "filtered", "filter": keys}
        error = rig.refused(400, "POST", "/subscribers/AI/subscribe", content)["error"]
        assert "0008,0070" in error or "Manufacturer" in error


def test_a_filter_keeps_its_extended_matching(rig: ManagementRig) -> None:
    content = {"scope": "filtered", "filter": {"WorklistLabel": '""'}, "mechanisms": ["empty"]}
    rig.ask("POST", "/subscribers/AI/subscribe", content)
    assert rig.refused(400, "POST", "/subscribers/AI/subscribe", content | {"mechanisms": ["magic"]})


def test_an_ae_lists_the_workitems_that_it_subscribed_to(rig: ManagementRig) -> None:
    uid = rig.have()
    rig.ask("POST", "/subscribers/AI/subscribe", {"scope": "workitem", "uid": uid, "lock": True})
    subscriber = rig.ask("GET", "/subscribers/AI")
    assert (subscriber["specific"], subscriber["locks"]) == (1, 1)
    assert subscriber["workitems"] == [{"uid": uid, "lock": True}]
    rig.ask("POST", "/subscribers/AI/unsubscribe", {"scope": "workitem", "uid": uid})
    assert rig.ask("GET", "/subscribers/AI")["workitems"] == []
    assert rig.worklist.workitems[uid].acts["AI"].state is Subscription.NONE


@pytest.mark.parametrize(
    ("changes", "health"),
    [
        ({}, "idle"),
        ({"last_success_at": 5.0}, "good"),
        ({"pending": 3, "last_success_at": 5.0}, "good"),
        ({"pending": 3, "failing": True, "last_error_at": 4.0, "last_success_at": 5.0}, "trouble"),
        ({"pending": 3, "last_error": "refused", "last_error_at": 9.0, "last_success_at": 5.0}, "good"),
        ({"serving": False}, "idle"),
        ({"serving": False, "pending": 1}, "unreachable"),
        ({"dead_letters": 3, "last_error_at": 9.0, "last_error": "answered C112"}, "refusing"),
        ({"dead_letters": 3, "last_error_at": 9.0, "last_success_at": 5.0}, "refusing"),
        ({"dead_letters": 3, "last_error_at": 4.0, "last_success_at": 5.0}, "good"),
        ({"serving": False, "durable": False}, "idle"),
    ],
)
def test_health_is_a_word(rig: ManagementRig, changes: Any, health: str) -> None:
    rig.delivery.reports = [endpoint_report("AI", **changes)]
    channels = rig.ask("GET", "/subscribers")["subscribers"][0]["channels"]
    assert channels[0]["health"] == health


def test_the_operator_steers_delivery(rig: ManagementRig) -> None:
    rig.delivery.reports = [endpoint_report("AI", pending=3, dead_letters=1)]
    rig.delivery.letters = [dead_letter("AI", 7, 5.0)]
    assert rig.ask("POST", "/subscribers/AI/retry", {}) == {"pending": 3}
    assert rig.ask("POST", "/subscribers/AI/drop", {"sequences": [1, 2]}) == {"dropped": 3}
    rig.ask("POST", "/subscribers/AI/resend", {"first": 3, "last": 9})
    assert rig.ask("POST", "/subscribers/AI/test-event", {}) == {"channels": 1}
    letters = rig.ask("GET", "/subscribers/AI/dead-letters")
    assert letters["total"] == 1
    assert letters["letters"][0]["reason"] == "connection refused"
    assert rig.ask("POST", "/subscribers/AI/dead-letters/resend", {}) == {"resent": 1}
    assert rig.ask("POST", "/subscribers/AI/dead-letters/drop", {"sequences": [7]}) == {"dropped": 1}
    assert rig.delivery.done == [
        ("retry", "AI"),
        ("drop", "AI", [1, 2]),
        ("resend", "AI", 3, 9),
        ("test", "AI"),
        ("resend dead", "AI", None),
        ("drop dead", "AI", [7]),
    ]


@pytest.mark.parametrize("content", [{}, {"first": 9, "last": 3}, {"first": True, "last": 3}, {"first": "1"}])
def test_a_range_must_be_one(rig: ManagementRig, content: Any) -> None:
    rig.refused(400, "POST", "/subscribers/AI/resend", content)
    assert rig.delivery.done == []


def test_an_echo_says_how_long_it_took_or_why_not(rig: ManagementRig) -> None:
    assert rig.ask("POST", "/subscribers/RIS/echo", {}) == {"seconds": 0.004}
    refusal = rig.refused(502, "POST", "/subscribers/AI/echo", {})
    assert refusal == {"error": "AI refused the connection", "status": "UNREACHABLE", "attribute": None}


def test_counts_are_by_state_and_by_worklist(rig: ManagementRig) -> None:
    rig.have(1)
    rig.have(2, full())
    rig.ask("POST", f"/workitems/{uid(2)}/claim", {})
    answer = rig.ask("GET", "/counts")
    assert answer["states"] == {"SCHEDULED": 1, "IN PROGRESS": 1, "COMPLETED": 0, "CANCELED": 0}
    assert answer["worklists"] == [
        {"worklist": "DEFAULT", "states": {"SCHEDULED": 1}},
        {"worklist": "SECOND READS", "states": {"IN PROGRESS": 1}},
    ]


def test_charts_count_what_went_on(rig: ManagementRig) -> None:
    rig.have(1)
    rig.ask("GET", "/overview")
    rig.clock.pass_by(minutes=2)
    rig.have(2)
    rig.have(3)
    report = endpoint_report("AI")
    rig.activity.delivered(report.endpoint, None, 0.03)  # type: ignore[arg-type]
    hour = rig.ask("GET", "/overview")["charts"]["hour"]
    assert hour["created"][-4:] == [None, 1, 0, 2]  # nothing is known of the time before the start
    assert len(hour["created"]) == 60
    assert (hour["delivered"][-1], hour["latency"]["median"][-1]) == (1, 0.05)


def test_warnings_say_in_words_what_needs_a_person() -> None:
    rig = ManagementRig(warnings=("AllowThreads is off.",))
    rig.delivery.reports = [
        endpoint_report("LOST", serving=False, pending=2),
        endpoint_report("SLOW", pending=90_000, oldest_at=0.0, last_error="connection refused"),
        endpoint_report("DEAD", dead_letters=4),
        endpoint_report("FINE", last_success_at=1.0),
    ]
    warnings = rig.ask("GET", "/overview")["warnings"]
    text = "\n".join(warning["text"] for warning in warnings)
    assert warnings[-1 - 2]["text"] == "AllowThreads is off."
    assert "2 events are waiting for LOST, but no address is configured for it" in text
    assert "nearly full: 90,000 of 100,000" in text
    assert "DEAD has 4 dead letters" in text
    assert "FINE" not in text


def test_the_overview_warns_also_when_nothing_can_be_counted(
    rig: ManagementRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk breaks the search index too, and that is when its warnings are wanted."""

    async def broken() -> None:
        raise ProjectionBroken("database or disk is full")

    rig.delivery.reports = [
        endpoint_report("DEAD", dead_letters=4, last_error="answered C112", last_error_at=9.0)
    ]
    monkeypatch.setattr(rig.worklist, "counts", broken)
    overview = rig.ask("GET", "/overview")
    first, second = (warning["text"] for warning in overview["warnings"] if warning["level"] == "error")
    assert first.startswith("Workitems cannot be counted or listed now: the search index is being rebuilt")
    assert second.startswith("DEAD refuses events")
    assert (overview["counts"], overview["late"]) == (None, None)
    assert rig.refused(503, "GET", "/counts")["status"] == "RESOURCE_LIMITATION"


def test_a_malformed_key_of_the_overview_is_refused(rig: ManagementRig) -> None:
    refusal = rig.refused(400, "GET", "/overview", query="ScheduledProcedureStepStartDateTime=yesterday")
    assert "ScheduledProcedureStepStartDateTime" in refusal["error"] + str(refusal["attribute"])


def test_a_jump_of_the_clock_is_noticed() -> None:
    rig = ManagementRig()
    rig.clock.pass_by(seconds=10)
    rig.clock.set_back(minutes=10)
    assert "jumped back by 10 minutes" in rig.ask("GET", "/overview")["warnings"][0]["text"]


def test_the_page_polls_for_what_changed(rig: ManagementRig) -> None:
    start = rig.ask("GET", "/changes", query="since=0")
    uid = rig.have()
    news = rig.ask("GET", "/changes", query=f"since={start['number']}")
    assert news["uids"] == [uid]
    assert news["complete"] is True
    assert rig.ask("GET", "/changes", query=f"since={news['number']}")["uids"] == []
    assert rig.ask("GET", "/changes", query="since=99999")["complete"] is False
    rig.refused(400, "GET", "/changes", query="since=x")


def test_a_subscriber_that_nothing_reaches_is_a_warning_with_a_link() -> None:
    rig = ManagementRig()
    rig.worklist.known_aes = (*rig.worklist.known_aes, "ELSEWHERE")
    rig.ask("POST", "/subscribers/ELSEWHERE/subscribe", {"scope": "global"})
    (warning,) = rig.ask("GET", "/overview")["warnings"]
    assert warning["text"].startswith("ELSEWHERE is subscribed, but is not in DicomModalities")
    assert warning["link"] == "#/subscriber/ELSEWHERE"
    rig.ask("POST", "/subscribers/ELSEWHERE/unsubscribe", {"scope": "global"})
    assert rig.ask("GET", "/overview")["warnings"] == []


def test_who_refuses_everything_is_an_error_and_stands_first() -> None:
    rig = ManagementRig(warnings=("AllowThreads is off.",))
    rig.delivery.reports = [
        endpoint_report("AI", dead_letters=2, last_error="answered C112", last_error_at=9.0)
    ]
    first, *others = rig.ask("GET", "/overview")["warnings"]
    assert (first["level"], first["link"]) == ("error", "#/subscriber/AI")
    assert "AI refuses events" in first["text"]
    assert {warning["level"] for warning in others} == {"warning"}
