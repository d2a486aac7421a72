# SPDX-License-Identifier: AGPL-3.0-or-later
"""The listener admits those whom Orthanc admits, and users have AE titles."""

import asyncio
import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthanc_ups.config import read_orthanc_settings
from orthanc_ups.core.ae_titles import AeTitles, InvalidAeTitle, valid_ae_title
from orthanc_ups.core.statuses import UpsError
from orthanc_ups.dicomweb.authorization import PROBE_HEADER, Authorization
from orthanc_ups.dicomweb.request import segments_of
from orthanc_ups.dicomweb.resources import Resource, ResourceKind, resource_of
from orthanc_ups.dicomweb.response import HttpProblem
from orthanc_ups.dicomweb.rights import Rights
from orthanc_ups.settings import Settings

BOB = {"authorization": "Basic " + base64.b64encode(b"bob:secret").decode()}
ITEMS, ITEM, OTHER = (
    Resource(ResourceKind.WORKITEMS),
    Resource(ResourceKind.WORKITEM, "1.2"),
    Resource(ResourceKind.WORKITEM, "1.3"),
)


class Orthanc:
    """Answers with `status`, or does not if that is 0; its route is called with the path, unless it has another."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.path: str | None = None
        self.asked: list[tuple[str, str, dict[str, str]]] = []

    async def ask(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        self.asked.append((method, path, dict(headers)))
        await asyncio.sleep(0)
        if not self.status:
            raise OSError("down")
        return self.status, (unquote(path.partition("?")[0]) if self.path is None else self.path).encode()


class AskedOrthanc:
    """An Authorization with an Orthanc and a clock to play with."""

    def __init__(self, status: int = 200, *, judges_by_path: bool = True, **raw: Any) -> None:
        self.orthanc = Orthanc(status)
        self.now = 0.0
        orthanc_settings = read_orthanc_settings({"AuthenticationEnabled": True, **raw})
        self.authorization = Authorization(
            self.orthanc,
            Settings(authorization_cache=5.0),
            orthanc_settings,
            lambda: self.now,
            judges_by_path=judges_by_path,
        )

    def admit(
        self, resource: Resource, headers: Mapping[str, str] = BOB, method: str = "GET", query: str = ""
    ) -> str | None:
        return asyncio.run(
            self.authorization.admit(method, resource, self.authorization.credentials(headers), query)
        )


def test_orthanc_is_asked_with_the_credentials_of_the_caller_and_nothing_else() -> None:
    rig = AskedOrthanc()
    headers = {**BOB, "cookie": "a=b", "user-agent": "x", "content-type": "y", "x-token": "z"}
    assert rig.admit(Resource(ResourceKind.STATE, "1.2"), headers, "PUT") == "bob"
    assert rig.orthanc.asked == [
        (
            "PUT",
            "/dicom-web/workitems/1.2/state",
            {**BOB, "cookie": "a=b", PROBE_HEADER: rig.authorization.secret},
        )
    ]


@pytest.mark.parametrize(
    ("resource", "path"),
    [
        (Resource(ResourceKind.SERVICE), "/dicom-web/workitems"),
        (Resource(ResourceKind.SUBSCRIBER, "1.2", "AI 1"), "/dicom-web/workitems/1.2/subscribers/AI%201"),
        (Resource(ResourceKind.CONNECTION, "", "AI"), "/dicom-web/subscribers/AI"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PATCH"])
def test_what_orthancs_server_lacks_is_asked_as_get(resource: Resource, path: str, method: str) -> None:
    rig = AskedOrthanc()
    rig.admit(resource, method=method)
    assert [(request[0], request[1]) for request in rig.orthanc.asked] == [("GET", path)]


@pytest.mark.parametrize(
    ("answered", "status"),
    [(401, 401), (403, 403), (400, 403), (404, 403), (405, 403), (500, 503), (503, 503), (0, 503)],
)
def test_refusals_of_orthanc_are_passed_on(answered: int, status: int) -> None:
    with pytest.raises(HttpProblem) as problem:
        AskedOrthanc(answered).admit(ITEMS)
    assert problem.value.status == status
    if status == 401:
        assert problem.value.headers == (("WWW-Authenticate", 'Basic realm="Orthanc Secure Area"'),)


@pytest.mark.parametrize(
    "path", ["/dicom-web/workitems", "/dicom-web/workitems/1.2/", "", "/app/explorer.html"]
)
def test_only_the_very_path_that_was_asked_about_is_a_yes(path: str) -> None:
    rig = AskedOrthanc()
    rig.orthanc.path = path
    with pytest.raises(HttpProblem, match="differently") as problem:
        rig.admit(ITEM)
    assert problem.value.status == 400


def test_a_verdict_is_for_this_very_path() -> None:
    rig = AskedOrthanc()
    for method in ("GET", "POST", "PUT"):
        for resource in (
            ITEM,
            OTHER,
            Resource(ResourceKind.STATE, "1.2"),
            Resource(ResourceKind.STATE, "1.3"),
        ):
            rig.admit(resource, method=method)
            rig.admit(resource, method=method)
    assert len(rig.orthanc.asked) == len({(method, path) for method, path, _ in rig.orthanc.asked}) == 12


def test_where_nothing_judges_by_path_a_verdict_is_for_the_credentials() -> None:
    rig = AskedOrthanc(judges_by_path=False)
    for method in ("GET", "POST", "PUT"):
        for resource in (ITEM, OTHER, Resource(ResourceKind.SUBSCRIBER, "1.2", "AI 1")):
            assert rig.admit(resource, method=method) == "bob"
    assert [request[:2] for request in rig.orthanc.asked] == [("GET", "/dicom-web/workitems")]
    rig.orthanc.status = 401
    with pytest.raises(HttpProblem):
        rig.admit(ITEM, {})
    rig.now = 5.0
    with pytest.raises(HttpProblem):
        rig.admit(ITEM)


def test_a_verdict_is_remembered_for_a_while() -> None:
    rig = AskedOrthanc()
    rig.admit(ITEM)
    rig.admit(ITEM)
    assert len(rig.orthanc.asked) == 1
    rig.now = 5.0
    rig.admit(ITEM)
    assert len(rig.orthanc.asked) == 2


def test_verdicts_do_not_fill_the_memory() -> None:
    rig = AskedOrthanc()

    async def many() -> None:
        bob = rig.authorization.credentials(BOB)
        for number in range(10_500):
            await rig.authorization.admit("GET", Resource(ResourceKind.WORKITEM, f"1.{number}"), bob, "")

    asyncio.run(many())
    assert rig.authorization.remembered <= 10_000


AE_TITLES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=16)
UIDS = st.from_regex(r"[1-9][0-9]{0,5}(\.[1-9][0-9]{0,5}){1,5}", fullmatch=True)


@given(kind=st.sampled_from(ResourceKind), uid=UIDS, ae=AE_TITLES)
def test_the_path_that_orthanc_is_asked_about_names_the_very_resource_that_is_acted_on(
    kind: ResourceKind, uid: str, ae: str
) -> None:
    try:
        title = valid_ae_title(ae)
    except InvalidAeTitle:
        return
    named = kind.value
    resource = Resource(kind, uid if "{workitem}" in named else "", title if "{aetitle}" in named else "")
    expected = Resource(ResourceKind.WORKITEMS) if kind is ResourceKind.SERVICE else resource
    assert resource_of(segments_of(resource.path)) == expected
    assert resource_of(unquote(resource.path).strip("/").split("/")) == expected


def test_other_credentials_methods_kinds_and_ae_titles_are_asked_anew() -> None:
    rig = AskedOrthanc()
    for resource in (
        ITEM,
        ITEMS,
        Resource(ResourceKind.CONNECTION, "", "A"),
        Resource(ResourceKind.CONNECTION, "", "B"),
    ):
        rig.admit(resource)
    rig.admit(ITEM, {})
    rig.admit(ITEM, method="POST")
    assert len(rig.orthanc.asked) == 6


def test_failure_to_answer_is_not_kept() -> None:
    rig = AskedOrthanc(0)
    with pytest.raises(HttpProblem):
        rig.admit(ITEM)
    rig.orthanc.status = 200
    assert rig.admit(ITEM) == "bob"


def test_many_callers_at_once_ask_once() -> None:
    rig = AskedOrthanc()

    bob = rig.authorization.credentials(BOB)

    async def crowd() -> None:
        await asyncio.gather(*(rig.authorization.admit("GET", ITEM, bob, "") for _ in range(50)))

    asyncio.run(crowd())
    assert len(rig.orthanc.asked) == 1


def test_tokens_of_an_authorization_plugin_are_credentials() -> None:
    rig = AskedOrthanc(Authorization={"TokenHttpHeaders": ["Auth-Token"], "TokenGetArguments": ["token"]})
    rig.admit(ITEM, {"auth-token": "abc", "host": "x"}, query="token=d%26e&other=1")
    ((_, path, headers),) = rig.orthanc.asked
    assert path == "/dicom-web/workitems/1.2?token=d%26e"
    assert headers["auth-token"] == "abc"
    assert "host" not in headers


@pytest.mark.parametrize("header", ["", "Bearer abc", "Basic !!!", "Basic " + base64.b64encode(b"nocolon").decode(),
                                    "Basic " + base64.b64encode(b"\xff:x").decode()])  # fmt: skip
def test_nobody_is_a_user_without_a_name_that_orthanc_checked(header: str) -> None:
    assert AskedOrthanc().admit(ITEM, {"authorization": header} if header else {}) is None


def test_nobody_is_a_user_where_orthanc_checks_none() -> None:
    assert AskedOrthanc(AuthenticationEnabled=False).admit(ITEM) is None


# --- Ups.Users --------------------------------------------------------------------------------------

USERS = {"bob": ("BOB1", "BOB2"), "root": ("*",), "*": ("PUBLIC",)}


def test_without_users_everybody_may_use_any_ae_title() -> None:
    rights = Rights({}, AeTitles())
    rights.check(None, "ANY")
    assert rights.requester(None, None).ae == "UPS-RS"
    assert rights.requester("bob", None).ae == "bob"
    assert rights.requester("bob", " CT1 ").ae == "CT1"
    assert rights.requester("böb", None).ae == "UPS-RS"


@pytest.mark.parametrize(
    ("user", "ae", "allowed"),
    [("bob", "BOB2", True), ("bob", "PUBLIC", True), ("bob", "CT1", False), ("root", "CT1", True),
     (None, "PUBLIC", True), (None, "BOB1", False), ("eve", "BOB1", False), ("*", "BOB1", False)],
)  # fmt: skip
def test_users_have_ae_titles(user: str | None, ae: str, allowed: bool) -> None:
    rights = Rights(USERS, AeTitles())
    if allowed:
        rights.check(user, ae)
        assert rights.requester(user, ae).ae == ae
    else:
        with pytest.raises(UpsError) as refusal:
            rights.requester(user, ae)
        assert refusal.value.status.http == 403


def test_requester_that_names_none_is_the_first_of_the_user() -> None:
    assert Rights(USERS, AeTitles()).requester("bob", None).ae == "BOB1"
    assert Rights(USERS, AeTitles()).requester("root", None).ae == "PUBLIC"
    with pytest.raises(UpsError):
        Rights({"bob": ("BOB1",)}, AeTitles()).requester("eve", None)


def test_requester_must_be_an_ae_title() -> None:
    with pytest.raises(HttpProblem, match="not an AE title"):
        Rights({}, AeTitles()).requester(None, "x" * 17)
