# SPDX-License-Identifier: AGPL-3.0-or-later
"""Each call of the module `orthanc` that sdk.py names exists in every supported Orthanc."""

import json
from typing import Any

import pytest
import requests

from orthanc_ups.orthanc import sdk
from tests.support.orthanc import RealOrthanc
from tests.support.plugin_scripts import write_script

CLASSES = (
    sdk.RestOutput,
    sdk.DicomInstance,
    sdk.ChangeType,
    sdk.ResourceType,
    sdk.InstanceOrigin,
    sdk.ReceivedInstanceAction,
    sdk.MetricsType,
)

SCRIPT = """
names = {"": dir(orthanc)}
for kind in %r:
    names[kind] = dir(getattr(orthanc, kind))

def answer(output, uri, **request):
    told = {"names": names, "keys": sorted(request), "groups": list(request["groups"]), "method": request["method"]}
    told["token"] = orthanc.GenerateRestApiAuthorizationToken()
    told["configured"] = json.loads(orthanc.GetConfiguration())["Name"]
    orthanc.LogInfo("info of a test")
    orthanc.LogError("error of a test")
    orthanc.SetMetricsValue("orthanc_ups_test", 7.5, orthanc.MetricsType.DEFAULT)
    if hasattr(orthanc, "SetMetricsIntegerValue"):
        orthanc.SetMetricsIntegerValue("orthanc_ups_test_integer", 7, orthanc.MetricsType.DEFAULT)
    orthanc.SetCurrentThreadName("A-TEST")
    orthanc.LogWarning("warning of a test")
    output.SetHttpHeader("Ups-Test", "a header")
    output.AnswerBuffer(json.dumps(told), "application/json")

orthanc.RegisterRestCallback("/test/(a|b)", answer)
orthanc.ExtendOrthancExplorer("/* of a test */")
orthanc.SetRootUri2("orthanc-ups", "/test/a")
orthanc.SetDescription2("orthanc-ups", "a description")
"""


def public(kind: type) -> set[str]:
    return {
        name for name in (*vars(kind), *vars(kind).get("__annotations__", {})) if not name.startswith("_")
    }


@pytest.fixture(scope="module")
def report(suite: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    script = write_script(tmp_path_factory.mktemp("sdk"), SCRIPT % ([kind.__name__ for kind in CLASSES],))
    with RealOrthanc(suite, script=script) as orthanc:
        answer = requests.get(f"{orthanc.base_url}/test/a", timeout=60)
        metrics = requests.get(f"{orthanc.base_url}/tools/metrics-prometheus", timeout=60).text
        plugin = requests.get(f"{orthanc.base_url}/plugins/orthanc-ups", timeout=60)
        content: dict[str, Any] = answer.json()
        return content | {
            "header": answer.headers["Ups-Test"], "log": orthanc.logs("warning of a test"), "metrics": metrics,
            "suite": suite, "plugin": plugin.text,
        }  # fmt: skip


def test_every_call_exists(report: dict[str, Any]) -> None:
    assert public(sdk.Orthanc) - set(report["names"][""]) == set()


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: str(kind.__name__))
def test_every_member_exists(report: dict[str, Any], kind: type) -> None:
    assert public(kind)
    assert public(kind) - set(report["names"][kind.__name__]) == set()


def test_what_newer_ones_only_have_is_just_that(report: dict[str, Any]) -> None:
    there = {name: name in report["names"][""] for name in sdk.IN_NEWER_ONLY}
    assert there == dict.fromkeys(sdk.IN_NEWER_ONLY, report["suite"] != "trixie")


def test_a_route_is_called_with_the_keys_that_we_read(report: dict[str, Any]) -> None:
    assert set(report["keys"]) <= set(sdk.RestRequest.__annotations__)
    assert report["groups"] == ["a"]
    assert report["method"] == "GET"
    assert report["header"] == "a header"


def test_the_calls_do_what_they_say(report: dict[str, Any]) -> None:
    assert report["token"].startswith("Bearer ")
    assert report["configured"].startswith("orthanc-ups tests")
    assert "warning of a test" in report["log"]
    assert "error of a test" in report["log"]
    assert "A-TEST" in report["log"]
    assert "orthanc_ups_test 7.5" in report["metrics"]
    assert json.loads(report["plugin"] or "{}") is not None
