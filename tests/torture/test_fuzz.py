# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ten thousand broken PDUs, messages, requests and frames: Orthanc lives, works and holds on to nothing.

The long form sends ten times as many.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import CTImageStorage
from pynetdicom import AE

from tests.support import fuzz
from tests.support.faults import MARK
from tests.support.fuzz import Case
from tests.support.load import writer_modalities
from tests.support.orthanc import RealOrthanc
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.one_suite("our own ports read what is broken before Orthanc sees anything"),
    pytest.mark.one_store("our own ports read what is broken before any store does"),
]

AT_ONCE = 10
BOUNDED, LONG = 1_000, 25_000  # of each of the four kinds
MEGABYTE = 1_000_000
POOLS = 16  # threads that pools may add on a busy machine, however many requests there were
KINDS: dict[str, tuple[Callable[[], st.SearchStrategy[Case]], bool]] = {
    "PDUs": (fuzz.pdus, True),
    "DIMSE messages": (fuzz.messages, True),
    "HTTP requests": (fuzz.requests, False),
    "WebSocket frames": (fuzz.frames, False),
}


@dataclass(frozen=True)
class Footprint:
    """What a process holds."""

    files: int
    threads: int
    memory: int

    @classmethod
    def of(cls, orthanc: RealOrthanc) -> Footprint:
        process = Path(f"/proc/{orthanc.pid}")
        return cls(
            len(list((process / "fd").iterdir())), len(list((process / "task").iterdir())), orthanc.rss()
        )


@pytest.fixture(scope="module")
def orthanc(suite: str, store: str) -> Iterator[RealOrthanc]:
    with RealOrthanc(suite, {"DicomModalities": writer_modalities(), "Ups": {"Store": store}}) as running:
        yield running


CT = Path(str(get_testdata_file("CT_small.dcm")))


def still_works(orthanc: RealOrthanc) -> None:
    """Orthanc's own C-STORE and REST, and our ports."""
    image = dcmread(CT)
    ae = AE("SENDER")
    ae.add_requested_context(CTImageStorage, image.file_meta.TransferSyntaxUID)
    association = ae.associate("127.0.0.1", orthanc.dicom_port, ae_title="ORTHANC")
    assert association.is_established
    assert association.send_c_store(image).Status == 0
    association.release()
    lookup = requests.post(f"{orthanc.base_url}/tools/lookup", str(image.SOPInstanceUID), timeout=10)
    assert [resource["Type"] for resource in lookup.json()] == ["Instance"]
    answer = requests.get(f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web/workitems?limit=1", timeout=10)
    assert answer.status_code in (200, 204)


def statuses(answers: list[bytes]) -> set[int]:
    return {int(code) for answer in answers for code in re.findall(rb"HTTP/1\.1 (\d\d\d) ", answer)}


def attack(orthanc: RealOrthanc, kind: str, cases: int) -> None:
    """Send so many cases."""
    strategy, is_dimse = KINDS[kind]
    port = orthanc.ups_dicom_port if is_dimse else orthanc.ups_http_port

    with asyncio.Runner() as runner:

        @settings(
            max_examples=cases // AT_ONCE,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(strategy(), min_size=AT_ONCE, max_size=AT_ONCE))
        def send(cases: list[Case]) -> None:
            answers = runner.run(fuzz.send(port, cases))
            assert orthanc.is_running(), orthanc.log_tail()
            assert 500 not in statuses(answers)

        send()


def settled(orthanc: RealOrthanc, before: Footprint) -> Footprint:
    """When every connection is gone: Orthanc itself keeps up to twelve of our loopback open for a second."""
    wait_until(
        lambda: Footprint.of(orthanc).files <= before.files + 4,
        lambda: f"handles are given back: {before} became {Footprint.of(orthanc)}",
        20,
    )
    return Footprint.of(orthanc)


def unharmed(orthanc: RealOrthanc, kind: str, cases: int, more_memory: int) -> None:
    begun = len(orthanc.log_text())
    attack(orthanc, kind, cases // 5)  # caches fill, pools grow to their size
    before = Footprint.of(orthanc)
    attack(orthanc, kind, cases - cases // 5)
    after = settled(orthanc, before)
    still_works(orthanc)
    assert after.threads <= before.threads + POOLS, f"{before} became {after}"
    assert after.memory <= before.memory + more_memory, f"{before} became {after}"
    lines = orthanc.log_text()[begun:].splitlines()
    complaints = [line for line in lines if MARK in line and "Traceback" in line]
    assert not complaints, complaints[:3]


@pytest.mark.parametrize("kind", KINDS)
def test_broken_input_harms_nothing(orthanc: RealOrthanc, kind: str) -> None:
    unharmed(orthanc, kind, BOUNDED, 30 * MEGABYTE)


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_thousand_cases_harm_nothing(orthanc: RealOrthanc, kind: str) -> None:
    unharmed(orthanc, kind, LONG, 60 * MEGABYTE)
