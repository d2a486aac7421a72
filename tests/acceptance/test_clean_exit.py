# SPDX-License-Identifier: AGPL-3.0-or-later
"""Orthanc ends with 0 after a clean stop, even if something is written to it while it stops."""

from pathlib import Path

import requests

from tests.support.orthanc import PLUGIN, RealOrthanc

_READER = {"DicomModalities": {"reader": ["READER", "127.0.0.1", 104]}}
_SUBSCRIBE = "/dicom-web/workitems/1.2.840.10008.5.1.4.34.5/subscribers/READER?deletionlock=true"

# Writes inside ORTHANC_STOPPED: Orthanc delivers these changes only when nobody follows changes any more.
_LATE_WRITER = f"""
import json, sys
import orthanc

sys.path.insert(0, {str(PLUGIN.parent)!r})
register = orthanc.RegisterOnChangeCallback
tags = {{"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "PatientID": "LATE"}}

def with_a_late_write(forward):
    def changed(change, level, resource):
        forward(change, level, resource)
        if change == orthanc.ChangeType.ORTHANC_STOPPED:
            for number in range(20):
                tags["PatientName"] = str(number)
                orthanc.RestApiPost("/tools/create-dicom", json.dumps({{"Tags": tags}}))
            orthanc.LogWarning("The late writes are done")
    register(changed)

orthanc.RegisterOnChangeCallback = with_a_late_write
import ups_plugin
"""


def test_an_idle_orthanc_ends_with_0(suite: str) -> None:
    with RealOrthanc(suite) as orthanc:
        assert orthanc.stop() == 0


def test_a_stop_right_after_a_write_ends_with_0(suite: str) -> None:
    with RealOrthanc(suite, _READER) as orthanc:
        assert requests.post(orthanc.base_url + _SUBSCRIBE, timeout=60).status_code == 201
        assert orthanc.stop() == 0


def test_writes_while_orthanc_stops_do_not_abort_it(suite: str, tmp_path: Path) -> None:
    script = tmp_path / "late_writer.py"
    script.write_text(_LATE_WRITER)
    with RealOrthanc(suite, script=script) as orthanc:
        orthanc.logs("Worklist ORTHANC is open")
        code = orthanc.stop()
        assert "The late writes are done" in orthanc.log_text()
        assert code == 0, orthanc.log_tail(5)
        assert "Orthanc has stopped" in orthanc.log_text()
