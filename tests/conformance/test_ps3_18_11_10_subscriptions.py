# SPDX-License-Identifier: AGPL-3.0-or-later
"""PS3.18 §11.10 Subscribe, §11.11 Unsubscribe, §11.12 Suspend Global Subscription."""

import pytest

from orthanc_ups.core.dataset import DataSet, element
from tests.support.web_client import WebClient, new_ae, new_uid, next_event
from tests.support.workitems import minimal

GLOBAL, FILTERED = "1.2.840.10008.5.1.4.34.5", "1.2.840.10008.5.1.4.34.5.1"


def subscribed_events(service: WebClient, ae: str) -> list[tuple[str, str]]:
    """Workitem and state of every State Report that an AE got, up to now."""
    last = service.create()
    service.post(f"/workitems/{last}/subscribers/{ae}")
    reports: list[tuple[str, str]] = []
    with service.socket(ae, since=0) as socket:
        while (event := next_event(socket))["00001000"]["Value"] != [last]:
            reports.append((event["00001000"]["Value"][0], event["00741000"]["Value"][0]))
    return reports


@pytest.mark.parametrize("resource", [GLOBAL, "workitem"])
@pytest.mark.parametrize(
    "lock",
    [
        *("", "?deletionlock=true", "?deletionlock=false", "?DeletionLock=TRUE"),
        *("?deletion-lock=true", "?00741230=TRUE", "?DELETIONLOCK=True&requester=CT1"),
    ],
)
def test_11_10_3_subscribe_is_201_and_tells_where_to_listen(
    service: WebClient, resource: str, lock: str
) -> None:
    ae = new_ae()
    uid = service.create() if resource == "workitem" else resource
    answer = service.post(f"/workitems/{uid}/subscribers/{ae}{lock}")
    assert (answer.status_code, answer.content) == (201, b"")
    where = f"{service.web_sockets}/subscribers/{ae}"
    assert answer.headers["Content-Location"] == answer.headers["Location"] == where
    assert "Warning" not in answer.headers


@pytest.mark.parametrize("name", ["deletionlock", "DeletionLock", "deletion-lock", "00741230"])
def test_11_10_1_deletion_lock_in_every_spelling_is_read(service: WebClient, name: str) -> None:
    target = f"/workitems/{service.create()}/subscribers/{new_ae()}?{name}=perhaps"
    assert service.post(target).status_code == 400


def test_11_11_unsubscribe_and_suspend_take_a_body_that_says_too_much(service: WebClient) -> None:
    ae, uid = new_ae(), service.create()
    lock: DataSet = {"00741230": element("LO", "TRUE"), "00741234": element("AE", ae)}
    assert service.post(f"/workitems/{uid}/subscribers/{ae}", lock).status_code == 201
    assert service.request("DELETE", f"/workitems/{uid}/subscribers/{ae}", json=lock).status_code == 200
    service.post(f"/workitems/{GLOBAL}/subscribers/{ae}", lock)
    assert service.post(f"/workitems/{GLOBAL}/subscribers/{ae}/suspend", lock).status_code == 200


def test_11_10_3_specific_subscription_brings_a_state_report_every_time(service: WebClient) -> None:
    ae, uid = new_ae(), service.create()
    with service.socket(ae) as socket:
        for _ in range(2):
            assert service.post(f"/workitems/{uid}/subscribers/{ae}").status_code == 201
            event = next_event(socket)
            assert event["00001000"]["Value"] == [uid]
            assert event["00741000"]["Value"] == ["SCHEDULED"]


def test_11_10_1_global_subscription_covers_what_comes(service: WebClient) -> None:
    ae = new_ae()
    service.post(f"/workitems/{GLOBAL}/subscribers/{ae}")
    with service.socket(ae) as socket:
        uid = service.create()
        while (event := next_event(socket))["00001000"]["Value"] != [uid]:
            pass
        assert event["00741000"]["Value"] == ["SCHEDULED"]


@pytest.mark.parametrize(
    "query",
    ["filter=ProcedureStepLabel%3D{label}", "filter=00741204={label},ProcedureStepState=SCHEDULED",
     "ProcedureStepLabel={label}", "00741204={label}&deletionlock=true"],
)  # fmt: skip
def test_11_10_1_filtered_subscription_in_both_forms(service: WebClient, query: str) -> None:
    ae, label = new_ae(), new_uid()[-20:]
    answer = service.post(f"/workitems/{FILTERED}/subscribers/{ae}?" + query.format(label=label))
    assert answer.status_code == 201
    with service.socket(ae) as socket:
        service.create()
        uid = service.create(minimal(t00741204=element("LO", label)))
        assert next_event(socket)["00001000"]["Value"] == [uid]


@pytest.mark.parametrize(
    "query",
    [
        "emptyvaluematching=true&filter=WorklistLabel={label},AdmissionID=%2522%2522",
        "filter=WorklistLabel={label},AdmissionID=%22%22,emptyvaluematching=true",
        "multiplevaluematching=true&WorklistLabel={label}%5Cnobody",
    ],
)
def test_8_3_4_a_filter_matches_empty_and_multiple_values(service: WebClient, query: str) -> None:
    ae, label = new_ae(), new_uid()[-16:]
    answer = service.post(f"/workitems/{FILTERED}/subscribers/{ae}?" + query.format(label=label))
    assert (answer.status_code, answer.headers.get("Warning")) == (201, None)
    with service.socket(ae) as socket:
        service.create(minimal(t00380010=element("LO", "ADM-1")))
        uid = service.create(minimal(t00741202=element("LO", label)))
        assert next_event(socket)["00001000"]["Value"] == [uid]


def test_11_10_1_a_key_of_a_filter_that_no_ups_has_is_named(service: WebClient) -> None:
    path = f"/workitems/{FILTERED}/subscribers/{new_ae()}"
    answer = service.post(f"{path}?filter=PatientID=nobody,Manufacturer=ACME,ProcedureStepState=DONE")
    assert answer.status_code == 201
    assert "were not used: Manufacturer (0008,0070)" in answer.headers["Warning"]
    assert (
        "No Workitem matches ProcedureStepState (0074,1000): expected SCHEDULED" in answer.headers["Warning"]
    )
    answer = service.post(f"{path}?filter=Manufacturer=ACME")
    assert answer.status_code == 400
    assert "matching keys" in answer.json()["Detail"]


def test_11_10_1_filter_may_stand_in_the_body(service: WebClient) -> None:
    ae, label = new_ae(), new_uid()[-20:]
    body = {"00741204": element("LO", label), "00741230": element("LO", "TRUE")}
    assert service.post(f"/workitems/{FILTERED}/subscribers/{ae}", body).status_code == 201
    with service.socket(ae) as socket:
        uid = service.create(minimal(t00741204=element("LO", label)))
        assert next_event(socket)["00001000"]["Value"] == [uid]


@pytest.mark.parametrize(
    "target",
    [
        f"{FILTERED}/subscribers/A",
        f"{FILTERED}/subscribers/A?filter=",
        f"{FILTERED}/subscribers/A?filter=Nonsense%3D1",
        f"{FILTERED}/subscribers/A?filter=SCHEDULED",
        f"{FILTERED}/subscribers/A?ScheduledProcedureStepStartDateTime=x",
        f"{GLOBAL}/subscribers/A?filter=PatientID%3D1",
        f"{GLOBAL}/subscribers/A?PatientID=1",
        f"{GLOBAL}/subscribers/A?deletionlock=maybe",
        f"{GLOBAL}/subscribers/{'x' * 17}",
        f"{GLOBAL}/subscribers/a%5Cb",
        f"{GLOBAL}/subscribers/a%0Ab",
        f"{GLOBAL}/subscribers/%20",
        "1..2/subscribers/A",
    ],
)
def test_11_10_2_syntax_is_400(service: WebClient, target: str) -> None:
    assert service.post(f"/workitems/{target}").status_code == 400


def test_11_10_1_ae_title_is_percent_encoded(service: WebClient) -> None:
    answer = service.post(f"/workitems/{service.create()}/subscribers/AI%20%2B1")
    assert answer.status_code == 201
    assert answer.headers["Content-Location"].endswith("/subscribers/AI%20%2B1")


def test_11_10_2_unknown_workitem_is_404(service: WebClient) -> None:
    assert service.post(f"/workitems/{new_uid()}/subscribers/A").status_code == 404


def test_11_11_3_unsubscribe_ends_the_events(service: WebClient) -> None:
    ae, uid, other = new_ae(), service.create(), service.create()
    for workitem in (uid, other):
        service.post(f"/workitems/{workitem}/subscribers/{ae}")
    answer = service.delete(f"/workitems/{uid}/subscribers/{ae}")
    assert (answer.status_code, answer.content) == (200, b"")
    service.claim(uid)
    service.claim(other)
    assert subscribed_events(service, ae) == [
        (uid, "SCHEDULED"),
        (other, "SCHEDULED"),
        (other, "IN PROGRESS"),
    ]


def test_11_11_2_no_such_subscription_is_404(service: WebClient) -> None:
    answer = service.delete(f"/workitems/{service.create()}/subscribers/{new_ae()}")
    assert answer.status_code == 404
    assert answer.headers["Warning"] == f"299 {service.url}: The target Subscription was not found."
    assert service.delete(f"/workitems/{GLOBAL}/subscribers/{new_ae()}").status_code == 404
    assert service.delete(f"/workitems/{new_uid()}/subscribers/{new_ae()}").status_code == 404


def test_11_11_1_unsubscribing_globally_removes_all(service: WebClient) -> None:
    ae, uid = new_ae(), service.create()
    service.post(f"/workitems/{GLOBAL}/subscribers/{ae}")
    service.post(f"/workitems/{uid}/subscribers/{ae}")
    assert service.delete(f"/workitems/{GLOBAL}/subscribers/{ae}").status_code == 200
    assert service.delete(f"/workitems/{uid}/subscribers/{ae}").status_code == 404


def test_11_12_3_suspend_leaves_what_there_is(service: WebClient) -> None:
    ae = new_ae()
    before = service.create()
    service.post(f"/workitems/{GLOBAL}/subscribers/{ae}")
    answer = service.post(f"/workitems/{GLOBAL}/subscribers/{ae}/suspend")
    assert (answer.status_code, answer.content) == (200, b"")
    after = service.create()
    service.claim(before)
    service.claim(after)
    assert subscribed_events(service, ae) == [(before, "IN PROGRESS")]


def test_11_12_2_only_global_subscriptions_can_be_suspended(service: WebClient) -> None:
    assert service.post(f"/workitems/{service.create()}/subscribers/A/suspend").status_code == 400


@pytest.mark.parametrize("resource", [GLOBAL, FILTERED])
def test_11_12_2_suspending_nothing_is_404(service: WebClient, resource: str) -> None:
    assert service.post(f"/workitems/{resource}/subscribers/{new_ae()}/suspend").status_code == 404
