# SPDX-License-Identifier: AGPL-3.0-or-later
"""Orthanc's key-value store for tests: in memory, or in a real Orthanc, reached by routes of a script."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator
from typing import Final

import requests

SCRIPT: Final = """
import base64

def answer(output, uri, **request):
    asked = json.loads(request["body"])
    store, key = asked["store"], asked["key"]
    value = None
    if asked["call"] == "store":
        orthanc.StoreKeyValue(store, key, base64.b64decode(asked["value"]))
    elif asked["call"] == "get":
        value = orthanc.GetKeyValue(store, key)
    elif asked["call"] == "delete":
        orthanc.DeleteKeyValue(store, key)
    elif asked["call"] == "iterate":
        iterator, value = orthanc.CreateKeysValuesIterator(store), []
        while iterator.Next():
            value.append([iterator.GetKey(), base64.b64encode(iterator.GetValue()).decode()])
    if isinstance(value, bytes):
        value = base64.b64encode(value).decode()
    output.AnswerBuffer(json.dumps(value), "application/json")

orthanc.RegisterRestCallback("/test/key-value", answer)
"""


class Pairs:
    """An iterator like Orthanc's."""

    def __init__(self, pairs: list[tuple[str, bytes]]) -> None:
        self._pairs: Iterator[tuple[str, bytes]] = iter(pairs)
        self._pair: tuple[str, bytes] = ("", b"")
        self._at_end = False

    def Next(self) -> bool:
        if self._at_end:
            raise RuntimeError("Bad sequence of calls")
        pair = next(self._pairs, None)
        if pair is None:
            self._at_end = True
            return False
        self._pair = pair
        return True

    def GetKey(self) -> str:
        return self._pair[0]

    def GetValue(self) -> bytes:
        return self._pair[1]


class InMemoryKeyValueStore:
    """Key-value stores in memory. ``failure`` is raised by the next write, once."""

    def __init__(self) -> None:
        self.stores: dict[str, dict[str, bytes]] = {}
        self.failure: Exception | None = None

    def StoreKeyValue(self, store: str, key: str, value: bytes, /) -> None:
        self._fail()
        self.stores.setdefault(store, {})[key] = value

    def GetKeyValue(self, store: str, key: str, /) -> bytes | None:
        return self.stores.get(store, {}).get(key)

    def DeleteKeyValue(self, store: str, key: str, /) -> None:
        self._fail()
        self.stores.get(store, {}).pop(key, None)

    def CreateKeysValuesIterator(self, store: str, /) -> Pairs:
        return Pairs(sorted(self.stores.get(store, {}).items()))

    def _fail(self) -> None:
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure


class RemoteKeyValueStore:
    """The key-value store of a real Orthanc that runs ``SCRIPT``."""

    def __init__(self, base_url: str) -> None:
        self._url = f"{base_url}/test/key-value"

    def _call(self, call: str, store: str, key: str = "", value: bytes = b"") -> object:
        body = {"call": call, "store": store, "key": key, "value": b64encode(value).decode()}
        answer = requests.post(self._url, json=body, timeout=60)
        answer.raise_for_status()
        return answer.json()

    def StoreKeyValue(self, store: str, key: str, value: bytes, /) -> None:
        self._call("store", store, key, value)

    def GetKeyValue(self, store: str, key: str, /) -> bytes | None:
        value = self._call("get", store, key)
        return b64decode(value) if isinstance(value, str) else None

    def DeleteKeyValue(self, store: str, key: str, /) -> None:
        self._call("delete", store, key)

    def CreateKeysValuesIterator(self, store: str, /) -> Pairs:
        pairs = self._call("iterate", store)
        assert isinstance(pairs, list)
        return Pairs([(key, b64decode(value)) for key, value in pairs])
