# SPDX-License-Identifier: AGPL-3.0-or-later
"""Query parameters of UPS-RS, in every spelling that clients have (PS3.18 §8.3, §11.4–§11.10)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote

from ..codecs.attribute_names import keyword_of, tag_of_name, vr_of
from ..codecs.element_values import inner_value
from ..core import tags
from ..core.dataset import BINARY_VRS, FLOAT_VRS, INTEGER_VRS, NAME_GROUPS, SINGLE_TEXT_VRS, DataSet, element
from ..core.key_tests import EMPTY_KEY, is_empty_key
from ..core.matching import Query
from ..core.mechanisms import Mechanisms
from ..core.rules import RULES
from ..core.statuses import Service
from ..core.value_rules import DEEPEST
from .request import decoded
from .response import HttpProblem

_LOST_PLUS: Final = re.compile(r"(?<=[\w.]) (?=(?:json|xml)\b)")
_UID: Final = re.compile(r"[0-9.]{1,64}")
_COUNT: Final = re.compile(r"[0-9]{1,9}")
_SEPARATORS: Final = str.maketrans("", "", "-_(), ")

# Names of what a transaction takes beside attributes to match: the parameter, its attribute, and what other servers
# call it. Each may be written with or without hyphens, and in any case.
WORKITEM: Final = ("workitem", "AffectedSOPInstanceUID", "SOPInstanceUID", "00001000", "00080018")
TRANSACTION_UID: Final = ("transaction-uid", "transaction", "00081195")
REQUESTER: Final = ("requester", "requester-ae", "requester-ae-title", "RequestingAE", "00741236")
DELETION_LOCK: Final = ("deletionlock", "00741230")
_COMMON: Final = frozenset({"accept", "charset"})
_MECHANISMS: Final[Mapping[str, Mechanisms]] = MappingProxyType(
    {
        "fuzzymatching": Mechanisms.FUZZY,
        "emptyvaluematching": Mechanisms.EMPTY,
        "multiplevaluematching": Mechanisms.MULTIPLE,
    }
)
MATCHING: Final = tuple(_MECHANISMS)
"""Parameters that switch extended matching mechanisms on (PS3.18 §8.3.4)."""

_SEARCH: Final = _COMMON.union(_MECHANISMS, ("includefield", "offset", "limit"))
_COMMAND: Final = _COMMON.union(REQUESTER)
_SUBSCRIBE: Final = _COMMAND.union(DELETION_LOCK, ("filter",))
_FILTERED: Final = _SUBSCRIBE.union(_MECHANISMS)
_SUPPORTED: Final[Mapping[Service, frozenset[str]]] = MappingProxyType(
    {
        Service.CREATE: _COMMAND.union(WORKITEM),
        Service.RETRIEVE: _COMMON,
        Service.UPDATE: _COMMAND.union(TRANSACTION_UID),
        Service.CHANGE_STATE: _COMMAND.union(TRANSACTION_UID),
        Service.REQUEST_CANCEL: _COMMAND,
        Service.SEARCH: _SEARCH,
        Service.SUBSCRIBE: _SUBSCRIBE,
        Service.UNSUBSCRIBE: _COMMAND,
        Service.SUSPEND: _COMMAND,
    }
)
CONNECTION: Final = _COMMAND | {"since"}
"""Parameters of Open Notification Connection."""

_BARE_UID: Final = frozenset({Service.CREATE, Service.UPDATE, Service.CHANGE_STATE})
_NAMES_IN_A_WARNING: Final = 20
_NAME_IN_A_WARNING: Final = 64  # characters


def supported(service: Service | None) -> frozenset[str]:
    """Names of the query parameters that a transaction has; None is Retrieve Capabilities.

    Attributes as match parameters of Search and of a filtered Subscribe come in addition.
    """
    return _COMMON if service is None else _SUPPORTED[service]


class Parameters:
    """The parameters of a query in order. Names compare without regard to case and hyphens; a bare one has value
    None.
    """

    def __init__(self, pairs: Iterable[tuple[str, str | None]]) -> None:
        self._pairs = tuple(pairs)

    @classmethod
    def of(cls, query: str) -> Parameters:
        """Take a query apart. Raises HttpProblem 400 if it is not percent-encoded UTF-8."""
        if not query:
            return _NONE
        pieces = (piece.partition("=") for piece in query.split("&") if piece)
        return cls((_text(name), _text(value) if equals else None) for name, equals, value in pieces)

    def __iter__(self) -> Iterator[tuple[str, str | None]]:
        return iter(self._pairs)

    def all(self, name: str) -> list[str]:
        """Every value of a parameter."""
        return [value or "" for other, value in self._pairs if spelling(other) == spelling(name)]

    def value(self, *names: str) -> str | None:
        """The value of a parameter that has one of these names. Raises HttpProblem 400 if it has several."""
        values = {value for name in names for value in self.all(name)}
        if len(values) > 1:
            raise HttpProblem(400, f"{names[0]} is given more than once, with different values")
        return values.pop() if values else None

    def bare_uid(self) -> str | None:
        """A UID without a parameter name in the query: ``?1.2.3``."""
        uids = [name for name, value in self._pairs if not value and _UID.fullmatch(name)]
        return uids[0] if uids else None

    def flag(self, *names: str) -> bool:
        """True or false, false if absent. Raises HttpProblem 400."""
        value = (self.value(*names) or "false").strip().lower()
        if value not in ("true", "false"):
            raise HttpProblem(400, f"{names[0]} is {value[:40]!r}, expected true or false")
        return value == "true"

    def count(self, name: str) -> int | None:
        """A whole number from 0, None if absent. Raises HttpProblem 400."""
        text = self.value(name)
        if text is None:
            return None
        if not _COUNT.fullmatch(text):
            raise HttpProblem(400, f"{name} is {text[:40]!r}, expected a whole number from 0")
        return int(text)

    def media_types(self) -> str | None:
        """What ``accept`` asks for; a plus sign that was not percent-encoded is one again."""
        if not self._pairs:
            return None
        ranges = [value for value in self.all("accept") if value.strip()]
        return _LOST_PLUS.sub("+", ", ".join(ranges)) if ranges else None

    def without(self, names: Collection[str]) -> list[tuple[str, str | None]]:
        """The parameters with other names."""
        spellings = {spelling(name) for name in names}
        return [(name, value) for name, value in self._pairs if spelling(name) not in spellings]

    def check_values(self, names: Collection[str]) -> None:
        """Raises HttpProblem 400 if a parameter with one of these names has no value (PS3.18 §8.3.1)."""
        spellings = {spelling(name) for name in names}
        for name, value in self._pairs:
            if spelling(name) in spellings and not (value or "").strip():
                raise HttpProblem(400, f"{name} has no value")

    def unsupported(self, service: Service | None, tokens: Collection[str] = ()) -> tuple[str, ...]:
        """Names of parameters that a transaction does not have: they are ignored (PS3.18 §8.3.1).

        ``tokens`` are names with another use, such as of a token. The match parameters of Search and of a filtered
        Subscribe are not among them: ``match_parameters`` separates attributes from other names.
        """
        others = self.without(supported(service) | set(tokens))
        uid = self.bare_uid() if service in _BARE_UID else None
        return tuple(name for name, _ in others if name != uid)


_NONE: Final = Parameters(())


@lru_cache(1024)
def spelling(name: str) -> str:
    """What all spellings of a parameter's name have in common: ``transaction-uid``, ``TransactionUID``."""
    return name.lower().translate(_SEPARATORS)


def _text(piece: str) -> str:
    return decoded(piece.replace("+", " "))


def ignored_warning(names: Iterable[str]) -> str:
    """The text of the Warning for ignored parameters; empty if none was ignored. It fits into a header."""
    unique = [quote(name[:_NAME_IN_A_WARNING], safe=" ./:()[]") for name in dict.fromkeys(names)]
    if not unique:
        return ""
    more = f" and {len(unique) - _NAMES_IN_A_WARNING} more" if len(unique) > _NAMES_IN_A_WARNING else ""
    listed = ", ".join(unique[:_NAMES_IN_A_WARNING])
    return f"Unsupported query parameters were ignored: {listed}{more}"


def key_warnings(query: Query) -> list[str]:
    """Warnings about keys that were not used, and about keys that no workitem can match."""
    warnings = []
    if query.unsupported:
        names = ", ".join(map(_spelled, query.unsupported))
        warnings.append(f"These are not matching keys of a Workitem and were not used: {names}")
    warnings += [f"No Workitem matches {_spelled(path)}: {reason}" for path, reason in query.unmatchable]
    return warnings


def _spelled(path: str) -> str:
    """A key as keywords, with its tag: ``QueryRetrieveLevel (0008,0052)``."""
    *above, tag = path.split(".")
    name = ".".join(keyword_of(part) or part for part in (*above, tag))
    return f"{name} ({tag[:4]},{tag[4:]})"


# --- Search -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SearchArguments:
    """The arguments of a Search (PS3.18 §11.9.1).

    Attributes:
        identifier: the match parameters as in C-FIND.
        ignored: names of parameters that are neither supported nor attributes.
        include: paths of tags from ``includefield``.
        everything: True for ``includefield=all``.
    """

    identifier: DataSet
    mechanisms: Mechanisms
    ignored: tuple[str, ...]
    offset: int
    limit: int
    include: frozenset[str]
    everything: bool


def search_arguments(parameters: Parameters, maximum: int, tokens: Collection[str] = ()) -> SearchArguments:
    """Read the parameters of a Search.

    ``maximum`` is the default and the greatest limit; ``tokens`` are names that belong to others.

    Raises:
        HttpProblem: 400, with the name of the parameter or attribute.
    """
    fields = [field.strip() for listed in parameters.all("includefield") for field in listed.split(",")]
    limit = parameters.count("limit")
    keys, ignored = match_parameters(parameters.without(_SEARCH | set(tokens)))
    mechanisms = _mechanisms(parameters)
    return SearchArguments(
        identifier=identifier(keys, mechanisms),
        mechanisms=mechanisms,
        ignored=ignored,
        offset=parameters.count("offset") or 0,
        limit=maximum if limit is None else min(limit, maximum),
        include=frozenset(".".join(_path(field)) for field in fields if field and field.lower() != "all"),
        everything=any(field.lower() == "all" for field in fields),
    )


def match_parameters(
    pairs: Iterable[tuple[str, str | None]],
) -> tuple[list[tuple[str, str | None]], tuple[str, ...]]:
    """Parameters that name attributes, and the names of all others, which are unknown parameters."""
    keys: list[tuple[str, str | None]] = []
    unknown: list[str] = []
    for name, value in pairs:
        if is_attribute(name):
            keys.append((name, value))
        else:
            unknown.append(name)
    return keys, tuple(unknown)


def is_attribute(name: str) -> bool:
    """True for keywords in any case and tags, joined by dots."""
    return all(tag_of_name(part) for part in name.split("."))


def _mechanisms(parameters: Parameters) -> Mechanisms:
    """The extended matching mechanisms that a client asks for (PS3.18 §8.3.4.4 to §8.3.4.6)."""
    mechanisms = Mechanisms.NONE
    for name, mechanism in _MECHANISMS.items():
        if parameters.flag(name):
            mechanisms |= mechanism
    return mechanisms


def identifier(pairs: Iterable[tuple[str, str | None]], mechanisms: Mechanisms = Mechanisms.NONE) -> DataSet:
    """Match parameters as the identifier of a C-FIND.

    Keys of one sequence share its one item. Raises HttpProblem 400 for an attribute that is unknown, given twice
    or has a value that its VR cannot have.
    """
    keys: DataSet = {}
    seen: set[tuple[str, ...]] = set()
    for name, value in pairs:
        path = _path(name)
        if path in seen:
            raise HttpProblem(400, f"{name[:100]} occurs twice: each attribute may occur once")
        seen.add(path)
        _add_key(keys, path, _Text(name, value or "", mechanisms))
    return _ordered(keys)


def _path(name: str) -> tuple[str, ...]:
    if name.count(".") > DEEPEST:
        raise HttpProblem(400, f"{name[:200]}… is nested too deeply: at most {DEEPEST} sequences")
    path: list[str] = []
    for part in name.split("."):
        tag = tag_of_name(part)
        if tag is None:
            raise HttpProblem(400, f"{name[:200]!r} is not an attribute: unknown keyword {part[:100]!r}")
        path.append(tag)
    return tuple(path)


@dataclass(frozen=True, slots=True)
class _Text:
    """A match parameter as it came: its name for refusals, its value, and how that is meant."""

    name: str
    value: str
    mechanisms: Mechanisms

    @property
    def is_empty_key(self) -> bool:
        """True for the value of Empty Value Matching."""
        return Mechanisms.EMPTY in self.mechanisms and is_empty_key(self.value)

    def values(self, vr: str) -> list[str]:
        """Its values: several in Multiple Value Matching, and in a list of UIDs."""
        if vr == "UI":
            return [value.strip() for value in re.split(r"[,\\]", self.value) if value.strip()]
        if Mechanisms.MULTIPLE in self.mechanisms and vr not in SINGLE_TEXT_VRS:
            return [value for value in self.value.split("\\") if value.strip()]
        return [self.value]


def _add_key(keys: DataSet, path: tuple[str, ...], text: _Text) -> None:
    for tag in path[:-1]:
        if vr_of(tag) != "SQ":
            raise HttpProblem(400, f"{text.name[:200]}: {tag} is not a sequence")
        keys = keys.setdefault(tag, {"vr": "SQ"}).setdefault("Value", [{}])[0]
    tag = path[-1]
    vr = vr_of(tag) or "LO"  # of private attributes the VR is unknown: text compares with any
    key = keys.setdefault(tag, {"vr": vr})
    if not text.value:
        return
    if vr == "SQ" and text.is_empty_key:
        key.setdefault("Value", [{}])[0].update(_empty_item(path, text.name))
    elif vr in BINARY_VRS or vr == "SQ":
        raise HttpProblem(400, f"{text.name[:200]} has VR {vr} and cannot have a value in a query")
    else:
        key["Value"] = [_value(tag, vr, text, value) for value in text.values(vr)]


def _empty_item(path: tuple[str, ...], name: str) -> DataSet:
    """Keys that only a sequence without items fits: every attribute that its items may have is empty."""
    rule = RULES.get(".".join(path))
    rules = rule.contents.rules.values() if rule and rule.contents else ()
    keys: DataSet = {
        attribute.tag: element(attribute.vr, {"Alphabetic": EMPTY_KEY} if attribute.vr == "PN" else EMPTY_KEY)
        for attribute in rules
        if attribute.match != "-" and attribute.vr not in BINARY_VRS | {"SQ"}
    }
    if not keys:
        raise HttpProblem(400, f"{name[:200]} is a sequence: ask for an attribute of its items")
    return keys


def _value(tag: str, vr: str, text: _Text, value: str) -> Any:
    if vr == "PN":
        groups = zip(NAME_GROUPS, value.split("=", 2), strict=False)
        return {group: part for group, part in groups if part}
    if vr == "DT" or tag == tags.TIMEZONE_OFFSET:
        value = re.sub(r" (?=[0-9]{4}(?:-|$))", "+", value)  # a plus sign that was not percent-encoded
    inner = inner_value(vr, value)
    is_empty = Mechanisms.EMPTY in text.mechanisms and is_empty_key(value)
    if vr in INTEGER_VRS | FLOAT_VRS and isinstance(inner, str) and not is_empty:
        raise HttpProblem(400, f"{text.name[:200]} is {value[:40]!r}, expected a number")
    return inner


def _ordered(keys: DataSet) -> DataSet:
    for key in keys.values():
        if key["vr"] == "SQ" and "Value" in key:
            key["Value"] = [_ordered(item) for item in key["Value"]]
    return dict(sorted(keys.items()))


# --- Subscribe --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FilterArguments:
    """The filter of a subscription; ``ignored`` are names in it that are neither supported nor attributes."""

    identifier: DataSet
    mechanisms: Mechanisms
    ignored: tuple[str, ...]


def filter_arguments(parameters: Parameters, tokens: Collection[str] = ()) -> FilterArguments:
    """The matching keys of a filtered subscription (PS3.18 §11.10.1.2), as the identifier of a C-FIND.

    Taken from ``filter=key=value,key2=value2`` and from parameters of their own. In the former a piece without
    an equals sign continues the value before it (a list of UIDs), and ``,`` or ``=`` within a value are
    percent-encoded twice.
    """
    pairs: list[tuple[str, str | None]] = []
    for piece in ",".join(parameters.all("filter")).split(","):
        name, equals, value = piece.partition("=")
        if equals:
            pairs.append((name.strip(), decoded(value)))
        elif pairs and piece:
            pairs[-1] = (pairs[-1][0], f"{pairs[-1][1]},{decoded(piece)}")
        elif piece:
            raise HttpProblem(400, f"filter has {piece[:100]!r}, expected attribute=value")
    return filter_of(pairs + parameters.without(_SUBSCRIBE.union(tokens)))


def filter_of(pairs: Iterable[tuple[str, str | None]]) -> FilterArguments:
    """A filter whose keys, and the mechanisms by which they match, are given one by one.

    Raises:
        HttpProblem: 400, with the name of the parameter or attribute.
    """
    parameters = Parameters(pairs)
    parameters.check_values(_MECHANISMS)
    mechanisms = _mechanisms(parameters)
    keys, ignored = match_parameters(parameters.without(_MECHANISMS))
    return FilterArguments(identifier(keys, mechanisms), mechanisms, ignored)
