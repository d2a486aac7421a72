# SPDX-License-Identifier: AGPL-3.0-or-later
"""What Orthanc's callback for worklist queries does: answers of all sources, and nothing raised out of it."""

from __future__ import annotations

from collections.abc import Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.core.statuses import RESOURCE_LIMITATION, UpsError
from orthanc_ups.dimse.data_sets import EXPLICIT, Bounds, decode
from orthanc_ups.modality.worklist import WorklistAnswers
from orthanc_ups.modality.worklist_callback import WorklistRequests, as_file
from orthanc_ups.modality.worklist_folder import WorklistFolder
from orthanc_ups.modality.worklist_query import UnusableKey
from orthanc_ups.settings import OrthancSettings, Settings

ANSWER: DataSet = {"00100020": element("LO", "P1")}
QUERY: DataSet = {"00100020": element("LO", "*")}


class Query:
    """A query that every file of the letter ``m`` fits."""

    def __init__(self, identifier: bytes = b"") -> None:
        self.identifier = identifier or as_file(QUERY)

    def WorklistGetDicomQuery(self) -> bytes:
        return self.identifier

    def WorklistIsMatch(self, dicom: bytes, /) -> bool:
        return b"m" in dicom


class Answers:
    """What was answered."""

    def __init__(self) -> None:
        self.files: list[bytes] = []
        self.incomplete = False

    def WorklistAddAnswer(self, query: Any, dicom: bytes, /) -> None:
        self.files.append(dicom)

    def WorklistMarkIncomplete(self) -> None:
        self.incomplete = True


def submit(work: Coroutine[Any, Any, WorklistAnswers]) -> Future[WorklistAnswers]:
    future: Future[WorklistAnswers] = Future()
    try:
        work.send(None)
    except StopIteration as stop:
        future.set_result(stop.value)
    except Exception as error:
        future.set_exception(error)
    return future


def requests(find: Any, folder: WorklistFolder | None = None, **orthanc_settings: Any) -> WorklistRequests:
    result = WorklistRequests(submit, Settings(), OrthancSettings(**orthanc_settings), folder)
    result.find = find
    return result


async def answer(_: DataSet) -> WorklistAnswers:
    return WorklistAnswers([ANSWER])


def asked(request: WorklistRequests, query: Query | None = None) -> Answers:
    answers = Answers()
    request(answers, query or Query(), "CT1", "ORTHANC")
    return answers


@pytest.fixture
def folder(tmp_path: Path) -> WorklistFolder:
    for name, content in (("a.wl", b"m1"), ("b.wl", b"x"), ("c.wl", b"m2"), ("d.txt", b"m3")):
        (tmp_path / name).write_bytes(content)
    return WorklistFolder(tmp_path)


def test_an_answer_is_a_dicom_file_that_orthanc_can_read() -> None:
    [file] = asked(requests(answer)).files
    assert file[128:132] == b"DICM"
    assert decode(file[file.index(b"\x10\x00\x20\x00") :], EXPLICIT, Bounds(), 1000, ("ascii",)) == ANSWER


def test_both_lists_are_answered(folder: WorklistFolder) -> None:
    answers = asked(requests(answer, folder))
    assert answers.files[1:] == [b"m1", b"m2"]
    assert not answers.incomplete


@pytest.mark.parametrize(
    "error", [UpsError(RESOURCE_LIMITATION, "busy"), RuntimeError("whatever"), TimeoutError()], ids=repr
)
def test_a_worklist_that_fails_leaves_the_folder_and_says_incomplete(
    folder: WorklistFolder, error: Exception
) -> None:
    async def fails(_: DataSet) -> WorklistAnswers:
        raise error

    answers = asked(requests(fails, folder))
    assert (answers.files, answers.incomplete) == ([b"m1", b"m2"], True)


def test_a_query_that_is_no_dicom_leaves_the_folder(folder: WorklistFolder) -> None:
    answers = asked(requests(answer, folder), Query(b"\x00broken"))
    assert (answers.files, answers.incomplete) == ([b"m1", b"m2"], True)


def test_a_worklist_that_is_not_open_yet_is_incomplete() -> None:
    assert asked(requests(None)).incomplete


def test_a_key_that_nothing_fits_is_an_empty_list() -> None:
    async def unusable(_: DataSet) -> WorklistAnswers:
        raise UnusableKey("Scheduled Procedure Step Start Date: expected a date")

    answers = asked(requests(unusable))
    assert (answers.files, answers.incomplete) == ([], False)


def test_answers_that_are_not_all_are_incomplete() -> None:
    async def more(_: DataSet) -> WorklistAnswers:
        return WorklistAnswers([ANSWER], "there are more than 1")

    assert asked(requests(more)).incomplete


def test_the_limit_of_the_worklists_plugin_holds_for_its_folder(folder: WorklistFolder) -> None:
    answers = asked(requests(answer, folder, worklists_limit=1))
    assert (answers.files[1:], answers.incomplete) == ([b"m1"], True)


def test_a_folder_that_is_gone_is_told_and_no_fault_of_the_workitems(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    request = requests(answer, WorklistFolder(tmp_path / "gone"))
    assert len(asked(request).files) == len(asked(request).files) == 1
    assert caplog.text.count("Worklists.Database") == 1


def test_only_what_is_for_the_modality_if_the_worklists_plugin_says_so(tmp_path: Path) -> None:
    for name, title in (("a", "CT1"), ("b", "MR1")):
        step: DataSet = {"00400001": element("AE", title), "00400007": element("LO", "m")}
        (tmp_path / f"{name}.wl").write_bytes(as_file({"00400100": element("SQ", step)}))
    (tmp_path / "c.wl").write_bytes(b"m: no DICOM")
    assert len(asked(requests(answer, WorklistFolder(tmp_path), worklists_of_issuer=True)).files) == 2


def test_our_own_test_query_is_answered_with_nothing(folder: WorklistFolder) -> None:
    request = requests(answer, folder)
    request.is_self_test = lambda identifier: identifier == QUERY
    assert asked(request).files == []


def test_the_script_of_a_site_is_asked_after_us() -> None:
    def site(answers: Any, query: Any, issuer: str, called: str) -> None:
        answers.WorklistAddAnswer(query, f"{issuer} {called}".encode())
        raise ValueError("fault of the site")

    request = WorklistRequests(submit, Settings(), OrthancSettings(), None, site)
    request.find = answer
    answers = asked(request)
    assert (answers.files[1:], answers.incomplete) == ([b"CT1 ORTHANC"], True)
