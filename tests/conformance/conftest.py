# SPDX-License-Identifier: AGPL-3.0-or-later
"""`service`: a DICOMweb service to check against PS3.18, in this process or in a real Orthanc."""

import os
from collections.abc import Iterator

import pytest

from tests.support.orthanc import SUITES, RealOrthanc
from tests.support.web_client import WebClient
from tests.support.web_service import WebService

_IN_PROCESS = "memory"


def _hosts() -> list[object]:
    """Names in ORTHANC_UPS_WEB_HOSTS: `memory`, or a suite of which a real Orthanc is started."""
    names = os.environ.get("ORTHANC_UPS_WEB_HOSTS", _IN_PROCESS).replace(",", " ").split()
    assert set(names) <= {_IN_PROCESS, *SUITES}
    return [pytest.param(name, marks=() if name == _IN_PROCESS else pytest.mark.real) for name in names]


@pytest.fixture(scope="module", params=_hosts())
def service(request: pytest.FixtureRequest) -> Iterator[WebClient]:
    """A running service, shared by the tests of a module: each works on workitems of its own."""
    if request.param == _IN_PROCESS:
        with WebService() as in_process:
            yield in_process
        return
    with RealOrthanc(request.param) as orthanc:
        client = WebClient(f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web")
        yield client
        client.session.close()
