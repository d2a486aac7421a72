# SPDX-License-Identifier: AGPL-3.0-or-later
"""The floor: an AE of pynetdicom whose handlers decode the data set and answer success."""

from __future__ import annotations

import socket
import threading
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt

from orthanc_ups.core import tags
from tests.support.dimse_client import to_pydicom
from tests.support.workitems import full, stored

_WORKITEM = to_pydicom(stored(base=full()))


def main() -> None:
    """Listen for ever, and print the port."""
    ae = AE("FLOOR")
    ae.maximum_associations = 100
    for uid in (tags.PUSH, tags.WATCH, tags.PULL, tags.EVENT, tags.QUERY):
        ae.add_supported_context(uid, ExplicitVRLittleEndian)
    handlers: list[Any] = [
        (evt.EVT_CONN_OPEN, _no_delay),
        (evt.EVT_N_CREATE, _create),
        (evt.EVT_N_SET, _set),
        (evt.EVT_N_GET, _get),
        (evt.EVT_N_ACTION, _action),
    ]
    server: Any = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    print(server.socket.getsockname()[1], flush=True)
    threading.Event().wait()


def _no_delay(event: Any) -> None:
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _decoded(dataset: Dataset) -> None:
    for element in dataset.iterall():
        assert element.VR


def _create(event: Any) -> tuple[int, Any]:
    _decoded(event.attribute_list)
    return 0, None


def _set(event: Any) -> tuple[int, Any]:
    _decoded(event.modification_list)
    return 0, None


def _get(_: Any) -> tuple[int, Any]:
    return 0, _WORKITEM


def _action(event: Any) -> tuple[int, Any]:
    _decoded(event.action_information)
    return 0, None


if __name__ == "__main__":
    main()
