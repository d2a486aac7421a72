# SPDX-License-Identifier: AGPL-3.0-or-later
"""``Ups.Store``: where the worklist is kept, and that it moves when the choice changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import requests

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import text
from orthanc_ups.store import shelves
from tests.support.orthanc import RealOrthanc
from tests.support.web_client import WebClient

HAS_KEY_VALUE_STORES = {"forky": True, "trixie": False}
GLOBAL = "1.2.840.10008.5.1.4.34.5"


@pytest.fixture
def key_value_suite(suite: str) -> str:
    if not HAS_KEY_VALUE_STORES[suite]:
        pytest.skip("Orthanc 1.12.7 has no key-value stores")
    return suite


def with_store(name: str, **more: Any) -> dict[str, Any]:
    return {"Ups": {"Store": name}, **more}


def client(orthanc: RealOrthanc) -> WebClient:
    return WebClient(f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web")


def get(orthanc: RealOrthanc, path: str) -> Any:
    answer = requests.get(orthanc.base_url + path, timeout=60)
    answer.raise_for_status()
    return answer.json()


def pseudo_patient_is_there(orthanc: RealOrthanc) -> bool:
    return requests.get(f"{orthanc.base_url}/patients/{shelves.PATIENT}", timeout=60).status_code == 200


def fill(orthanc: RealOrthanc, workitems: int = 3) -> list[str]:
    """Some workitems, the first one claimed, and a global subscription."""
    web = client(orthanc)
    uids = [web.create() for _ in range(workitems)]
    web.claim(uids[0])
    assert web.post(f"/workitems/{GLOBAL}/subscribers/WATCHER").status_code == 201
    return uids


def holds(orthanc: RealOrthanc, uids: list[str]) -> None:
    """Everything that ``fill`` made is there."""
    web = client(orthanc)
    states = [text(web.retrieve(uid), tags.STATE) for uid in uids]
    assert states == ["IN PROGRESS", *["SCHEDULED"] * (len(uids) - 1)]
    subscribers = get(orthanc, "/ups/api/subscribers")
    assert "WATCHER" in str(subscribers)


def test_auto_takes_the_key_value_store_where_orthanc_has_it(suite: str) -> None:
    with RealOrthanc(suite) as orthanc:
        uids = fill(orthanc)
        assert pseudo_patient_is_there(orthanc) is not HAS_KEY_VALUE_STORES[suite]
        holds(orthanc, uids)


def test_with_the_key_value_store_nothing_shows_in_the_pacs(key_value_suite: str) -> None:
    with RealOrthanc(key_value_suite, with_store("key-value")) as orthanc:
        fill(orthanc)
        statistics = get(orthanc, "/statistics")
        assert (statistics["CountPatients"], statistics["CountInstances"]) == (0, 0)
        assert get(orthanc, "/changes")["Changes"] == []


def test_the_key_value_store_needs_no_check_revisions(key_value_suite: str) -> None:
    with RealOrthanc(key_value_suite, with_store("key-value", CheckRevisions=False)) as orthanc:
        holds(orthanc, fill(orthanc))


def test_a_worklist_in_the_key_value_store_survives_kill_and_stop(key_value_suite: str) -> None:
    with RealOrthanc(key_value_suite, with_store("key-value")) as orthanc:
        uids = fill(orthanc)
        orthanc.kill()
        orthanc.start()
        holds(orthanc, uids)
        assert orthanc.stop() == 0
        orthanc.start()
        holds(orthanc, uids)


def test_a_worklist_moves_with_the_choice_there_and_back(key_value_suite: str) -> None:
    with RealOrthanc(key_value_suite, with_store("metadata")) as orthanc:
        uids = fill(orthanc)
        for store in ("key-value", "metadata"):
            orthanc.kill()
            orthanc.configuration["Ups"]["Store"] = store
            orthanc.start()
            holds(orthanc, uids)
            assert pseudo_patient_is_there(orthanc) is (store == "metadata")
            orthanc.logs(f"to {store}")


@pytest.mark.parametrize("kills", [2, pytest.param(12, marks=pytest.mark.torture)])
def test_a_move_that_is_killed_is_finished_at_the_next_start(key_value_suite: str, kills: int) -> None:
    with RealOrthanc(key_value_suite, with_store("metadata")) as orthanc:
        uids = fill(orthanc, 60)
        for number in range(kills):
            orthanc.kill()
            orthanc.configuration["Ups"]["Store"] = ("key-value", "metadata")[number % 2]
            orthanc.log.write_bytes(b"")
            orthanc.launch()
            orthanc.logs("has started")
            orthanc.kill()
            orthanc.start()
            holds(orthanc, uids)


def test_key_value_where_there_is_none_is_a_line_that_names_the_key(suite: str, tmp_path: Path) -> None:
    if HAS_KEY_VALUE_STORES[suite]:
        pytest.skip("this Orthanc has key-value stores")
    orthanc = RealOrthanc(suite, with_store("key-value"), folder=tmp_path)
    try:
        orthanc.launch()
        assert orthanc.wait() != 0
        assert '"Ups.Store" is "key-value"' in orthanc.log_text()
        assert "Traceback" not in orthanc.log_text()
    finally:
        orthanc.discard()


def test_metadata_needs_check_revisions_and_says_so(suite: str, tmp_path: Path) -> None:
    orthanc = RealOrthanc(suite, with_store("metadata", CheckRevisions=False), folder=tmp_path)
    try:
        orthanc.launch()
        assert orthanc.wait() != 0
        assert '"CheckRevisions" is false or absent, expected true' in orthanc.log_text()
    finally:
        orthanc.discard()


def test_what_was_deleted_is_made_good_on_the_way_to_key_value(key_value_suite: str) -> None:
    """Choosing the key-value store is the cure for a router that deletes the pseudo patient."""
    with RealOrthanc(key_value_suite, with_store("metadata")) as orthanc:
        uids = fill(orthanc)
        orthanc.kill()
        orthanc.configuration["Ups"] |= {"Enable": False}
        orthanc.start()
        requests.delete(f"{orthanc.base_url}/patients/{shelves.PATIENT}", timeout=60).raise_for_status()
        orthanc.kill()
        orthanc.configuration["Ups"] |= {"Enable": True, "Store": "key-value"}
        for _ in range(2):
            orthanc.start()
            holds(orthanc, uids)
            assert not pseudo_patient_is_there(orthanc)
            orthanc.kill()


SCRIPT = """
import json, orthanc
FILE = {file!r}

def put_aside(output, uri, **request):
    iterator, values = orthanc.CreateKeysValuesIterator("orthanc-ups"), {{}}
    while iterator.Next():
        values[iterator.GetKey()] = iterator.GetValue().decode("latin-1")
    for key in values:
        orthanc.DeleteKeyValue("orthanc-ups", key)
    json.dump(values, open(FILE, "w"))
    output.AnswerBuffer("done", "text/plain")

def put_back(output, uri, **request):
    for key, value in json.load(open(FILE)).items():
        orthanc.StoreKeyValue("orthanc-ups", key, value.encode("latin-1"))
    output.AnswerBuffer("done", "text/plain")

orthanc.RegisterRestCallback("/put-aside", put_aside)
orthanc.RegisterRestCallback("/put-back", put_back)
"""


def by_another_script(orthanc: RealOrthanc, script: Path, path: str) -> None:
    ours, orthanc.configuration["PythonScript"] = orthanc.configuration["PythonScript"], str(script)
    orthanc.kill()
    orthanc.start()
    assert get_text(orthanc, path) == "done"
    orthanc.kill()
    orthanc.configuration["PythonScript"] = ours


def get_text(orthanc: RealOrthanc, path: str) -> str:
    return requests.get(orthanc.base_url + path, timeout=60).text


def test_of_two_worklists_the_chosen_one_is_used_and_auto_goes_on_with_the_last_one(
    key_value_suite: str, tmp_path: Path
) -> None:
    script = tmp_path / "values.py"
    script.write_text(SCRIPT.format(file=str(tmp_path / "values.json")))
    uids = {}
    with RealOrthanc(key_value_suite, with_store("key-value")) as orthanc:
        uids["key-value"] = fill(orthanc)
        by_another_script(orthanc, script, "/put-aside")
        orthanc.configuration["Ups"]["Store"] = "metadata"
        orthanc.start()
        uids["metadata"] = fill(orthanc)
        by_another_script(orthanc, script, "/put-back")
        tells = 0
        for choice, used in (("auto", "metadata"), ("key-value", "key-value"), ("auto", "key-value")):
            orthanc.kill()
            orthanc.configuration["Ups"]["Store"] = choice
            orthanc.start()
            holds(orthanc, uids[used])
            if used == "key-value":
                assert client(orthanc).get(f"/workitems/{uids['metadata'][0]}").status_code == 404
            tells += choice != "auto" or tells == 0  # what was decided once is not told again
            words = "Orthanc holds two worklists"
            assert orthanc.logs(words, tells).count(words) == tells
            orthanc.logs(f"the one in its {used} is used")


GARBAGE = """
import orthanc

def spoil(output, uri, **request):
    for key, value in {"workitem/1.2.3": b"x", "workitem/1.2.4": b"5\\nx", "subscriber/A": b"1\\n"}.items():
        orthanc.StoreKeyValue("orthanc-ups", key, value)
    output.AnswerBuffer("done", "text/plain")

orthanc.RegisterRestCallback("/spoil", spoil)
"""


def test_values_that_are_no_entries_are_named_by_their_store_and_the_rest_is_served(
    key_value_suite: str, tmp_path: Path
) -> None:
    script = tmp_path / "garbage.py"
    script.write_text(GARBAGE)
    with RealOrthanc(key_value_suite, with_store("key-value")) as orthanc:
        uids = fill(orthanc)
        by_another_script(orthanc, script, "/spoil")
        (orthanc.folder / "data" / "orthanc-ups.sqlite").unlink()  # without it every entry is read
        orthanc.start()
        holds(orthanc, uids)
        log = orthanc.logs("The value of workitem/1.2.3 in Orthanc's key-value store is not an entry")
        for key in ("workitem/1.2.4", "subscriber/A"):
            log = orthanc.logs(f"Entry {key} of the store is not readable")
        assert "metadata" not in log.split("workitem/1.2.3")[1]
        assert "Traceback" not in log


@pytest.mark.parametrize("store", ["key-value", "metadata"])
def test_an_administrator_can_look_at_what_is_stored_and_no_transaction_uid_stands_there(
    suite: str, store: str
) -> None:
    if store == "key-value" and not HAS_KEY_VALUE_STORES[suite]:
        pytest.skip("Orthanc 1.12.7 has no key-value stores")
    with RealOrthanc(suite, with_store(store)) as orthanc:
        web = client(orthanc)
        uid = web.create()
        transaction = web.claim(uid)
        assert web.post(f"/workitems/{GLOBAL}/subscribers/WATCHER").status_code == 201
        storage = get(orthanc, "/ups/api/storage")
        assert storage["store"] == store
        counts = {kind["kind"]: kind["entries"] for kind in storage["kinds"]}
        assert (counts["workitem"], counts["subscriber"], counts["worklist"]) == (1, 1, 1)
        assert storage["entries"] == sum(counts.values())
        entry = get(orthanc, f"/ups/api/storage/entry?key=workitem/{uid}")
        assert text(entry["document"]["attributes"], tags.STATE) == "IN PROGRESS"
        entries = get(orthanc, "/ups/api/storage/entries?limit=1000")
        assert not entries["more"]
        for stored in entries["entries"]:
            answer = requests.get(f"{orthanc.base_url}/ups/api/storage/entry?key={stored['key']}", timeout=60)
            assert answer.status_code == 200, answer.text
            assert transaction not in answer.text
