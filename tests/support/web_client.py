# SPDX-License-Identifier: AGPL-3.0-or-later
"""A UPS-RS client (PS3.18) with the steps that many tests need."""

from __future__ import annotations

import json
import uuid
from base64 import b64encode
from typing import Any

import requests
from websockets.sync.client import ClientConnection, connect

from orthanc_ups.codecs import dicom_json
from orthanc_ups.core.dataset import DataSet
from tests.support import workitems
from tests.support.waiting import PATIENCE

TIMEOUT = PATIENCE


def basic(user: str, password: str) -> str:
    """The value of ``Authorization`` (RFC 7617)."""
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


class WebClient:
    """Talks to one service.

    Args:
        keep_alive: whether a connection is used again. Not on Orthanc's own port: it closes a connection that was idle
            for a second, perhaps just as the next request is on its way (and says "keep-alive" to whoever asks for
            "close").

    Attributes:
        url: base URI of the service.
        web_sockets: base of the URLs of notification connections.
    """

    def __init__(self, url: str, keep_alive: bool = True) -> None:
        self.url = url
        self.web_sockets = "ws" + url.removeprefix("http")
        self.session = requests.Session()
        self.session.trust_env = False
        self._keep_alive = keep_alive

    def request(self, method: str, path: str, **more: Any) -> requests.Response:
        """A request below the base of the service."""
        if not self._keep_alive:
            self.session.close()  # idle connections; the session can be used further
        return self.session.request(method, self.url + path, timeout=TIMEOUT, **more)

    def get(self, path: str, **more: Any) -> requests.Response:
        return self.request("GET", path, **more)

    def post(self, path: str, content: DataSet | bytes | None = None, **more: Any) -> requests.Response:
        return self.request("POST", path, **_with_body(content, more))

    def put(self, path: str, content: DataSet | bytes | None = None, **more: Any) -> requests.Response:
        return self.request("PUT", path, **_with_body(content, more))

    def delete(self, path: str, **more: Any) -> requests.Response:
        return self.request("DELETE", path, **more)

    def socket(self, ae: str, since: int | None = None, **more: Any) -> ClientConnection:
        """An open notification connection."""
        query = "" if since is None else f"?since={since}"
        url = f"{self.web_sockets}/subscribers/{ae}{query}"
        opened: ClientConnection = connect(url, open_timeout=TIMEOUT, close_timeout=1.0, proxy=None, **more)
        return opened

    # --- steps ---

    def create(self, attributes: DataSet | None = None) -> str:
        """A new workitem; returns its UID."""
        uid = new_uid()
        answer = self.post(
            f"/workitems?workitem={uid}", workitems.minimal() if attributes is None else attributes
        )
        assert answer.status_code == 201, answer.text
        return uid

    def claim(self, uid: str) -> str:
        """Claim a workitem; return the Transaction UID."""
        transaction = new_uid()
        answer = self.put(f"/workitems/{uid}/state", state("IN PROGRESS", transaction))
        assert answer.status_code == 200, answer.text
        return transaction

    def complete(self, uid: str) -> str:
        """Complete a workitem; return the Transaction UID."""
        transaction = self.claim(uid)
        answer = self.post(f"/workitems/{uid}?transaction-uid={transaction}", workitems.performed())
        assert answer.status_code == 200, answer.text
        answer = self.put(f"/workitems/{uid}/state", state("COMPLETED", transaction))
        assert answer.status_code == 200, answer.text
        return transaction

    def cancel(self, uid: str) -> None:
        """Cancel a workitem that nobody has claimed."""
        assert self.post(f"/workitems/{uid}/cancelrequest").status_code == 202

    def retrieve(self, uid: str) -> DataSet:
        """The present workitem."""
        answer = self.get(f"/workitems/{uid}")
        assert answer.status_code == 200, answer.text
        (workitem,) = dicom_json.decode(answer.content)
        return workitem


def _with_body(content: DataSet | bytes | None, more: dict[str, Any]) -> dict[str, Any]:
    if content is None:
        return more
    body = content if isinstance(content, bytes) else dicom_json.encode(content)
    headers = {"Content-Type": "application/dicom+json", **more.pop("headers", {})}
    return {**more, "data": body, "headers": headers}


def state(value: str | None, transaction: str | None) -> DataSet:
    """The body of Change State."""
    attributes: DataSet = {}
    if transaction is not None:
        attributes["00081195"] = {"vr": "UI", "Value": [transaction]}
    if value is not None:
        attributes["00741000"] = {"vr": "CS", "Value": [value]}
    return attributes


def new_uid() -> str:
    """A UID that is not in use."""
    return f"2.25.{uuid.uuid4().int}"


def new_ae() -> str:
    """An AE title that is not in use: events that another test left undelivered go elsewhere."""
    return f"AE{uuid.uuid4().hex[:12].upper()}"


def next_event(socket: ClientConnection, timeout: float = TIMEOUT) -> dict[str, Any]:
    """The next event that a socket receives."""
    text = socket.recv(timeout)
    assert isinstance(text, str), "events are text messages"
    content = json.loads(text)
    assert isinstance(content, dict)
    return content
