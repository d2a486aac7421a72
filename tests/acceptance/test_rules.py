# SPDX-License-Identifier: AGPL-3.0-or-later
"""Rules on a real Orthanc: the example of docs/rules.md as it is written, with real images by every way in."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import requests
from pydicom.uid import generate_uid

from orthanc_ups.core.dataset import DataSet, element, items, text, values
from orthanc_ups.management.keyword_form import to_data_set
from tests.support.images import by_c_store, by_rest, by_stow, image, series
from tests.support.orthanc import DICOMWEB_PLUGIN, PYTHON_PLUGIN, RealOrthanc
from tests.support.waiting import wait_until
from tests.support.web_client import WebClient, state
from tests.support.workitems import minimal, performed

pytestmark = pytest.mark.one_store("rules execute commands, and the contract tests hold each store to those")

DOCS: Final = (Path(__file__).resolve().parents[2] / "docs" / "rules.md").read_text()
LABEL, WORKLIST, INPUT, READINESS = "00741204", "00741202", "00404021", "00404041"
STATE, PERFORMED, OUTPUT = "00741000", "00741216", "00404033"
TEMPLATE: Final = {
    "Name": "Second reading",
    "Attributes": {"ProcedureStepLabel": "Second reading", "WorklistLabel": "SECOND"},
}


def example() -> list[dict[str, Any]]:
    written = re.search(r'```json\n"Ups": (\{ "Rules".*?)\n```', DOCS, re.DOTALL)
    assert written
    rules: list[dict[str, Any]] = json.loads(written[1])["Rules"]
    return rules


def configuration(store: str) -> dict[str, Any]:
    return {
        "StableAge": 1,
        "Plugins": [PYTHON_PLUGIN, DICOMWEB_PLUGIN],
        "DicomAlwaysAllowStore": True,
        "Ups": {"Store": store, "Rules": example(), "Templates": [TEMPLATE], "CheckOutputs": True},
    }


@pytest.fixture(scope="module")
def orthanc(suite: str, store: str) -> Iterator[RealOrthanc]:
    with RealOrthanc(suite, configuration(store)) as running:
        yield running


def client(orthanc: RealOrthanc) -> WebClient:
    return WebClient(f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web")


def search(orthanc: RealOrthanc, **keys: str) -> list[DataSet]:
    answer = client(orthanc).get("/workitems", params={"includefield": "all", **keys})
    return answer.json() if answer.status_code == 200 else []


def workitem(**attributes: str) -> DataSet:
    return dict(sorted((minimal() | to_data_set(attributes)).items()))


def soon(check: Callable[[], Any], what: str) -> None:
    wait_until(lambda: bool(check()), what, interval=0.1)


def references(item: DataSet) -> set[str]:
    return {text(reference, "00081155") for reference in items(item, "00081199")}


def inputs(orthanc: RealOrthanc, patient: str) -> list[set[str]]:
    """The instances of each input of each workitem.

    Images that come slowly make their series stable before the last of them; then the workitem is updated.
    """
    workitems = search(orthanc, PatientID=patient)
    return [references(item) for workitem in workitems for item in items(workitem, INPUT)]


def api(orthanc: RealOrthanc, path: str) -> Any:
    return requests.get(f"{orthanc.base_url}/ups/api{path}", timeout=60).json()


def test_ai_gets_a_workitem_for_each_chest_ct_of_its_scanners_and_for_nothing_else(
    orthanc: RealOrthanc,
) -> None:
    chest = series(3, PatientID="CHEST1", BodyPartExamined="CHEST")
    head = series(1, PatientID="HEAD1", BodyPartExamined="HEAD")
    of_ct9 = series(1, PatientID="CHEST2", BodyPartExamined="CHEST")
    by_c_store(orthanc, "CT1", *chest, *head)
    by_c_store(orthanc, "CT9", *of_ct9)
    images = {image.SOPInstanceUID for image in chest}
    soon(lambda: inputs(orthanc, "CHEST1") == [images], "a workitem for the chest CT")
    (workitem,) = search(orthanc, PatientID="CHEST1")
    assert text(workitem, LABEL) == "Lung nodules of CHEST1"
    assert text(workitem, WORKLIST) == "AI"
    assert text(workitem, "0020000D") == chest[0].StudyInstanceUID
    (reference,) = items(workitem, INPUT)
    assert text(reference, "0020000E") == chest[0].SeriesInstanceUID
    (way,) = items(reference, "0040E021")
    assert values(way, "00080054") == ["ORTHANC"]
    assert search(orthanc, PatientID="HEAD1") == search(orthanc, PatientID="CHEST2") == []
    uid = text(workitem, "00080018")
    history = api(orthanc, f"/workitems/{uid}")["history"]
    assert 'rule "AI on chest CT"' in json.dumps(history, ensure_ascii=False).replace('\\"', '"')


def test_a_late_instance_updates_the_workitem_and_makes_no_second_one(orthanc: RealOrthanc) -> None:
    images = series(2, PatientID="LATE1", BodyPartExamined="CHEST")
    by_c_store(orthanc, "CT1", images[0])
    soon(lambda: search(orthanc, PatientID="LATE1"), "a workitem for the first image")
    by_c_store(orthanc, "CT1", images[1])
    both = {image.SOPInstanceUID for image in images}
    soon(lambda: inputs(orthanc, "LATE1") == [both], "the late image is among the inputs")
    assert len(search(orthanc, PatientID="LATE1")) == 1


@pytest.mark.parametrize("way", ["REST", "STOW", "C-STORE"])
def test_a_plan_makes_its_treatment_ready_however_it_comes(orthanc: RealOrthanc, way: str) -> None:
    patient = f"RT-{way}"
    waiting = workitem(WorklistLabel="RT", PatientID=patient, InputReadinessState="INCOMPLETE")
    uid = client(orthanc).create(waiting)
    plan = image("rtplan.dcm", PatientID=patient)
    if way == "REST":
        by_rest(orthanc, plan)
    elif way == "STOW":
        by_stow(orthanc, plan)
    else:
        by_c_store(orthanc, "PLANNER", plan)
    soon(lambda: text(client(orthanc).retrieve(uid), READINESS) == "READY", "the plan makes it ready")
    (reference,) = items(client(orthanc).retrieve(uid), INPUT)
    assert references(reference) == {plan.SOPInstanceUID}


def test_a_report_completes_the_reporting_of_its_study(orthanc: RealOrthanc) -> None:
    study = generate_uid()
    uid = client(orthanc).create(workitem(WorklistLabel="REPORTING", StudyInstanceUID=study))
    unreported = client(orthanc).create(workitem(WorklistLabel="REPORTING", StudyInstanceUID=generate_uid()))
    report = image("test-SR.dcm", StudyInstanceUID=study, SeriesInstanceUID=generate_uid())
    by_rest(orthanc, report)
    soon(lambda: text(client(orthanc).retrieve(uid), STATE) == "COMPLETED", "the report completes it")
    (done,) = items(client(orthanc).retrieve(uid), PERFORMED)
    (output,) = items(done, OUTPUT)
    assert references(output) == {report.SOPInstanceUID}
    assert text(client(orthanc).retrieve(unreported), STATE) == "SCHEDULED"


def test_a_second_reading_follows_an_urgent_first_one_with_its_outputs(orthanc: RealOrthanc) -> None:
    first = workitem(
        WorklistLabel="READING",
        PatientID="READ1",
        ScheduledProcedureStepPriority="HIGH",
        StudyInstanceUID="1.2.3.44",
    )
    uid = client(orthanc).create(first)
    client(orthanc).complete(uid)
    soon(lambda: search(orthanc, PatientID="READ1", WorklistLabel="SECOND"), "a second reading")
    (second,) = search(orthanc, PatientID="READ1", WorklistLabel="SECOND")
    assert text(second, "0020000D") == "1.2.3.44"
    assert text(second, LABEL) == "Second reading"


# --- /ups/api/rules ---


def test_a_test_says_what_each_rule_would_do_and_why_not(orthanc: RealOrthanc) -> None:
    images = series(1, PatientID="TEST1", BodyPartExamined="HEAD")
    by_c_store(orthanc, "CT1", *images)
    answer = requests.post(
        f"{orthanc.base_url}/ups/api/rules/test", json={"study": images[0].StudyInstanceUID}, timeout=30
    )
    assert answer.status_code == 200, answer.text
    rules = {rule["name"]: rule for rule in answer.json()["rules"]}
    (chest,) = rules["AI on chest CT"]["causes"]
    assert not chest["fires"] and chest["why_not"] == ['BodyPartExamined is "HEAD", expected "CHEST*"']
    (plan,) = rules["Plan is there"]["causes"]
    assert plan["why_not"] == ['Modality is "CT", expected "RTPLAN"']
    assert rules["Second reading"]["why_not"] == ["nothing here is a cause of Completed"]
    missing = requests.post(f"{orthanc.base_url}/ups/api/rules/test", json={"study": "1.2.3.99"}, timeout=60)
    assert missing.status_code == 404


def test_rules_are_listed_with_what_they_did_and_run_over_what_is_there(orthanc: RealOrthanc) -> None:
    images = series(1, PatientID="COUNT1", BodyPartExamined="CHEST")
    by_c_store(orthanc, "CT2", *images)
    soon(lambda: search(orthanc, PatientID="COUNT1"), "a workitem")
    soon(lambda: has_fired(orthanc, "AI on chest CT"), "it is counted")
    before = len(search(orthanc, WorklistLabel="AI"))
    url = f"{orthanc.base_url}/ups/api/rules/AI%20on%20chest%20CT/backfill"
    assert requests.post(url, json={}, timeout=60).status_code == 200
    soon(lambda: is_through(requests.get(url, timeout=60).json()), "the backfill is through")
    assert len(search(orthanc, WorklistLabel="AI")) == before


def has_fired(orthanc: RealOrthanc, name: str) -> bool:
    (rule,) = [rule for rule in api(orthanc, "/rules")["rules"] if rule["name"] == name]
    return rule["fired"] >= 1 and "created workitem" in rule["last"] and bool(rule["last_at"])


def is_through(progress: dict[str, Any]) -> bool:
    assert progress["error"] == ""
    return not progress["running"] and progress["done"] == progress["total"] >= 1


# --- crashes and stops ---


def test_what_arrived_before_a_crash_is_seen_after_it(orthanc: RealOrthanc) -> None:
    """Orthanc itself tells of no stable series then, ever."""
    images = series(2, PatientID="CRASH1", BodyPartExamined="CHEST")
    by_c_store(orthanc, "CT1", *images)
    orthanc.kill()
    orthanc.start()
    both = {image.SOPInstanceUID for image in images}
    soon(lambda: inputs(orthanc, "CRASH1") == [both], "a workitem in spite of the crash")


@pytest.mark.torture
@pytest.mark.parametrize("end", ["kill", "stop"])
def test_what_arrived_before_an_end_of_orthanc_or_without_the_plugin_is_seen(
    suite: str, store: str, end: str
) -> None:
    with RealOrthanc(suite, {**configuration(store), "StableAge": 3}) as orthanc:
        by_c_store(orthanc, "CT1", *series(2, PatientID="END1", BodyPartExamined="CHEST"))
        orthanc.kill() if end == "kill" else orthanc.stop()
        orthanc.start()
        soon(lambda: search(orthanc, PatientID="END1"), "a workitem in spite of the end")
        orthanc.kill()
        orthanc.configuration["Ups"]["Enable"] = False
        orthanc.start()
        by_c_store(orthanc, "CT1", *series(1, PatientID="END2", BodyPartExamined="CHEST"))
        orthanc.stop()
        orthanc.configuration["Ups"]["Enable"] = True
        orthanc.start()
        soon(lambda: search(orthanc, PatientID="END2"), "a workitem for what came meanwhile")
        assert len(search(orthanc, PatientID="END1")) == len(search(orthanc, PatientID="END2")) == 1


# --- outputs ---


def test_outputs_that_did_not_arrive_keep_a_workitem_open_on_every_interface(orthanc: RealOrthanc) -> None:
    """``Ups.CheckOutputs``: C304, 409, and the instance is named."""
    result = image("test-SR.dcm", PatientID="OUT1", Modality="OT")
    uid = client(orthanc).create()
    transaction = client(orthanc).claim(uid)
    output: DataSet = {
        "00081199": element(
            "SQ",
            {
                "00081150": element("UI", str(result.SOPClassUID)),
                "00081155": element("UI", str(result.SOPInstanceUID)),
            },
        ),
        "0020000D": element("UI", str(result.StudyInstanceUID)),
        "0020000E": element("UI", str(result.SeriesInstanceUID)),
        "0040E020": element("CS", "DICOM"),
        "0040E021": element("SQ", {"00080054": element("AE", "ORTHANC")}),
    }
    done = performed(t00404033=element("SQ", output))
    url = f"/workitems/{uid}?transaction-uid={transaction}"
    assert client(orthanc).post(url, done).status_code == 200
    complete = state("COMPLETED", transaction)
    refusal = client(orthanc).put(f"/workitems/{uid}/state", complete)
    assert refusal.status_code == 409 and result.SOPInstanceUID in refusal.text
    page = requests.post(f"{orthanc.base_url}/ups/api/workitems/{uid}/complete", json={}, timeout=60)
    assert page.status_code == 409 and result.SOPInstanceUID in page.text
    by_rest(orthanc, result)
    assert client(orthanc).put(f"/workitems/{uid}/state", complete).status_code == 200
