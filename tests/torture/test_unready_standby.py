# SPDX-License-Identifier: AGPL-3.0-or-later
"""The leader ends while the only standby is still reading a large worklist in: no request hangs, and none is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import requests

from orthanc_ups.core import statuses, tags
from orthanc_ups.core.dataset import element, text
from tests.bench.filling import filled_in_postgresql, uid
from tests.support.dimse_client import UpsClient
from tests.support.nodes import health, leads, nodes, stands_by, workitems
from tests.support.orthanc import RealOrthanc
from tests.support.postgresql import PostgreSql
from tests.support.waiting import wait_until
from tests.support.web_client import WebClient

pytestmark = [pytest.mark.torture, pytest.mark.timeout(3600)]

COUNT: Final = 100_000
READ_WITHIN: Final = 1_200.0
MODALITIES: Final = {"DicomModalities": {"scu": ["SCU", "127.0.0.1", 104]}}


@pytest.fixture
def unready(suite: str, tmp_path: Path) -> Iterator[RealOrthanc]:
    """A node that has taken the lease of a leader over that was killed, and reads the worklist in."""
    with PostgreSql() as database, nodes(suite, tmp_path, database, overrides=MODALITIES) as (first, second):
        filled_in_postgresql(first, database, COUNT)
        first.launch()
        leads(first, READ_WITHIN)
        second.launch()
        stands_by(second, READ_WITHIN)
        os.kill(first.pid, signal.SIGKILL)
        wait_until(lambda: health(second) == ("starting", "leader"), second.log_tail, READ_WITHIN)
        yield second


def test_requests_are_refused_until_it_has_read_everything(unready: RealOrthanc) -> None:
    """503 with Retry-After, and the statuses of a lack of resources (PS3.7 annex C, PS3.4 C.4.1.1.4)."""
    address = f"{workitems(unready)}/{uid(5)}"
    refused = (
        requests.get(f"http://127.0.0.1:{unready.ups_http_port}/ups/health", timeout=60),
        requests.get(address, timeout=60),
        requests.get(f"{unready.base_url}/dicom-web/workitems/{uid(5)}", timeout=60),
        requests.get(f"{unready.base_url}/ups/api/overview", timeout=60),
    )
    assert [answer.status_code for answer in refused] == [503] * 4
    assert [answer.headers.get("Retry-After") for answer in refused[1:]] == ["2"] * 3
    assert requests.get(f"{unready.base_url}/ups/app/", timeout=60).ok
    with UpsClient(unready.ups_dicom_port) as client:
        assert client.echo().code == 0
        assert client.get(uid(5)).code == statuses.RESOURCE_LIMITATION.code
        (answer,) = client.find({tags.SOP_INSTANCE_UID: element("UI", uid(5))})
        assert answer.code == statuses.OUT_OF_RESOURCES.code

    leads(unready, READ_WITHIN)
    unready.logs("This node read the whole worklist")
    assert requests.get(address, timeout=60).status_code == 200
    counts = requests.get(f"{unready.base_url}/ups/api/overview", timeout=60).json()["counts"]["states"]
    assert sum(counts.values()) == COUNT
    web = WebClient(f"http://127.0.0.1:{unready.ups_http_port}/dicom-web")
    assert text(web.retrieve(web.create()), tags.STATE) == "SCHEDULED"
