# SPDX-License-Identifier: AGPL-3.0-or-later
"""The stored state of the rules: their position in ``/changes``, resources that are not stable yet, counts per rule."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final

import orjson

from ..store.documents import FORMAT, UnreadableDocument, read
from ..store.writer import StoredEntry

NOTE: Final = "rules"


@dataclass(slots=True)
class RuleRecord:
    """Counts of a rule, and what it did last.

    Attributes:
        fired: how often it did something; ``failed``: how often that was refused; ``stopped``: how often a loop ended.
        last_at: when it last did something, in seconds since the epoch; ``last``: what it did.
        error_at, error: the last refusal.
    """

    fired: int = 0
    failed: int = 0
    stopped: int = 0
    last_at: float | None = None
    last: str = ""
    error_at: float | None = None
    error: str = ""


@dataclass(slots=True)
class Memory:
    """The stored state of all rules.

    Attributes:
        cursor: the last row of ``/changes`` that was processed; None if no rule is about images.
        unstable: per ``series/…``, ``study/…`` or ``patient/…`` the time of its last instance, in seconds since the
            epoch.
        ended_at: ends of workitems up to this time were processed; None if no rule is about ends.
        studies: studies in the archive that are inputs of open workitems: Orthanc's identifier to Study Instance UID.
        records: by name of the rule.
    """

    cursor: int | None = None
    unstable: dict[str, float] = field(default_factory=dict)
    ended_at: float | None = None
    studies: dict[str, str] = field(default_factory=dict)
    records: dict[str, RuleRecord] = field(default_factory=dict)
    revision: int = 0

    def touch(self, resource: str, at: float) -> None:
        """Note that an instance of a resource has arrived."""
        self.unstable[resource] = max(at, self.unstable.pop(resource, at))

    def record(self, rule: str) -> RuleRecord:
        """The record of a rule."""
        return self.records.setdefault(rule, RuleRecord())


def encode_memory(memory: Memory) -> bytes:
    """The document to store."""
    return orjson.dumps({"format": FORMAT, **asdict(memory)})


def decode_memory(document: bytes) -> Memory:
    """Read a stored document. Raises UnreadableDocument."""
    content = read(document)
    try:
        return Memory(
            cursor=_number(content.get("cursor")),
            unstable={str(key): float(at) for key, at in content.get("unstable", {}).items()},
            ended_at=None if content.get("ended_at") is None else float(content["ended_at"]),
            studies={str(key): str(uid) for key, uid in content.get("studies", {}).items()},
            records={str(name): RuleRecord(**record) for name, record in content.get("records", {}).items()},
            revision=int(content.get("revision", 0)),
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise UnreadableDocument(f"not a note of rules: {error!r}") from error


def _number(value: Any) -> int | None:
    return None if value is None else int(value)


async def save(memory: Memory, note: StoredEntry) -> int:
    """Store the state, and return its size in bytes. May raise StoreUnavailable."""
    memory.revision += 1
    document = encode_memory(memory)
    await note.write(lambda _: document)
    return len(document)
