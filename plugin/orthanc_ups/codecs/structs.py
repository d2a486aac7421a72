# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reads JSON objects into msgspec structs, and names every mistake: which key, its value, what is expected.

orthanc.json, bodies and queries of ``/ups/api``, and the lines of an export are read here. msgspec detects that
something is wrong; this module finds the key and words the message.

A number that can also be written as text has a ``Meta`` whose ``extra`` has ``parse``, a function that converts such a
text to a number and returns anything else unchanged; ``expected``, a description of valid values; and optionally
``unit``, the unit of its bounds. ``Settings`` has durations such as ``"15m"``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any, Final, TypeVar, get_args, get_origin

import msgspec
from msgspec import Meta, inspect

T = TypeVar("T", bound=msgspec.Struct)
_MAXIMUM_LENGTH: Final = 60
_FEW_KEYS: Final = 12
_KINDS: Final[Mapping[str, str]] = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_LENGTHS: Final[Mapping[str, str]] = {
    "str<=": "a string of at most {} characters",
    "str>=": "a string of at least {} characters",
    "array<=": "a list of at most {} entries",
    "array>=": "a list of at least {} entries",
}


@dataclass(frozen=True, slots=True)
class KeyFault:
    """A mistake in the value of a key, or an unknown or missing key.

    Attributes:
        path: from the outermost object, such as ``inputs[2].level``; empty for that object itself.
        reason: continues a sentence that begins with the path, such as ``is 5, expected a string``.
        is_unknown: True if there is no such key; ``reason`` is then a suggestion.
    """

    path: str
    reason: str
    is_unknown: bool = False

    def __str__(self) -> str:
        words = f"is unknown{self.reason}" if self.is_unknown else self.reason
        return f'"{self.path}" {words}' if self.path else words


class WrongKeys(ValueError):
    """An object does not match its struct. ``faults`` has every key at fault, and the text names them all."""

    def __init__(self, faults: tuple[KeyFault, ...]) -> None:
        super().__init__("; ".join(map(str, faults)))
        self.faults = faults


def decode(struct: type[T], content: object, *, path: str = "", strict: bool = True) -> T:
    """Convert an object that was parsed from JSON (or a query) to a struct.

    Args:
        struct: unknown keys are refused if it has ``forbid_unknown_fields``, else ignored.
        content: as returned by a JSON parser.
        path: the path of the object, for messages.
        strict: False accepts texts for numbers and truth values, as in a query.

    Raises:
        WrongKeys: it is not an object, or some keys are wrong, missing or unknown.
    """
    try:
        parsed = _parsed(content, struct) if _struct_parses(struct) else content
        return msgspec.convert(parsed, struct, strict=strict)
    except msgspec.ValidationError as error:
        check(struct, content, path=path, strict=strict)
        raise WrongKeys((KeyFault(path, str(error)),)) from None


def check(struct: type[msgspec.Struct], content: object, *, path: str = "", strict: bool = True) -> None:
    """Raise WrongKeys with every key at fault. ``content`` is as returned by a JSON parser."""
    if not isinstance(content, Mapping) and not path:
        raise WrongKeys((KeyFault("", f"expected an object, not {shown(content)}"),))
    if faults := tuple(_faults(path, content, struct, strict)):
        raise WrongKeys(faults)


def suggestion(name: str, names: Iterable[str]) -> str:
    """``; did you mean "…"?`` with the most similar name, regardless of case; empty if there is none."""
    lowered = {candidate.lower(): candidate for candidate in names}
    close = get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    return f'; did you mean "{lowered[close[0]]}"?' if close else ""


def shown(value: object) -> str:
    """A value for a message, shortened."""
    text = repr(value) if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= _MAXIMUM_LENGTH else text[: _MAXIMUM_LENGTH - 1] + "…"


# --- annotations ---


def _plain(kind: Any) -> tuple[Any, Meta | None]:
    """An annotation without ``Annotated`` and without None or UNSET as an alternative, and its ``Meta``."""
    meta: Meta | None = None
    while True:
        if get_origin(kind) is Annotated:
            kind, *marks = get_args(kind)
            meta = next((mark for mark in marks if isinstance(mark, Meta)), meta)
            continue
        alternatives = [member for member in get_args(kind) if member not in (type(None), msgspec.UnsetType)]
        if len(alternatives) != 1 or len(get_args(kind)) != 2 or get_origin(kind) in (tuple, list, dict):
            return kind, meta
        kind = alternatives[0]


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _fields(struct: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    """The fields of a struct by key."""
    return {field.encode_name: field for field in msgspec.structs.fields(struct)}


def _members(value: Any, kind: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Key or index, value and annotation of each member of a list or a dictionary."""
    if isinstance(value, Mapping) and len(get_args(kind)) == 2:
        yield from ((key, member, get_args(kind)[1]) for key, member in value.items())
    elif isinstance(value, (list, tuple)) and get_args(kind):
        yield from ((index, member, get_args(kind)[0]) for index, member in enumerate(value))


# --- texts for numbers ---


def _parser(meta: Meta | None) -> Callable[[object], object] | None:
    return (meta.extra or {}).get("parse") if meta is not None else None


def _parses(kind: Any) -> bool:
    """True if values of this kind, or members of them, may be texts that stand for numbers."""
    kind, meta = _plain(kind)
    if _parser(meta) is not None:
        return True
    below = [field.type for field in msgspec.structs.fields(kind)] if _is_struct(kind) else get_args(kind)
    return any(_parses(member) for member in below)


_struct_parses: Final = cache(_parses)


def _parsed(value: Any, kind: Any) -> Any:
    """The value, with each text that stands for a number replaced by that number."""
    kind, meta = _plain(kind)
    if parse := _parser(meta):
        return parse(value)
    if _is_struct(kind) and isinstance(value, Mapping):
        fields = _fields(kind)
        return {
            key: _parsed(member, fields[key].type) if key in fields else member
            for key, member in value.items()
        }
    if members := list(_members(value, kind)):
        parsed = {key: _parsed(member, below) for key, member, below in members}
        return parsed if isinstance(value, Mapping) else list(parsed.values())
    return value


# --- what is wrong ---


def _faults(path: str, value: Any, kind: Any, strict: bool) -> Iterator[KeyFault]:
    """The first fault of each key of a struct; for a list or a dictionary, those of its first wrong member."""
    message = _refusal(value, kind, strict)
    if not message:
        return
    plain, meta = _plain(kind)
    if _is_struct(plain) and isinstance(value, Mapping):
        yield from _faults_of_struct(path, value, plain, strict)
        return
    for key, member, below in _members(value, plain):
        if faults := list(_faults(_joined(path, key), member, below, strict)):
            yield from faults
            return
    yield KeyFault(path, f"is {shown(value)}, expected {_expected(message, plain, meta)}")


def _faults_of_struct(
    path: str, content: Mapping[Any, Any], struct: type[msgspec.Struct], strict: bool
) -> Iterator[KeyFault]:
    fields = _fields(struct)
    if struct.__struct_config__.forbid_unknown_fields:
        for key in content:
            if key not in fields:
                hint = suggestion(str(key), fields)
                if not hint and len(fields) <= _FEW_KEYS:
                    hint = f"; expected {', '.join(fields)}"
                yield KeyFault(_joined(path, str(key)[:_MAXIMUM_LENGTH]), hint, is_unknown=True)
    for key, field in fields.items():
        if key in content:
            yield from _faults(_joined(path, key), content[key], field.type, strict)
        elif field.required:
            yield KeyFault(_joined(path, key), "is missing")


def _joined(path: str, key: object) -> str:
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else str(key)


def _refusal(value: object, kind: Any, strict: bool) -> str:
    """Why msgspec refuses a value, "" if it does not. Goes through JSON, because ``convert`` refuses ``Raw``."""
    try:
        msgspec.json.decode(msgspec.json.encode(_parsed(value, kind)), type=kind, strict=strict)
    except msgspec.ValidationError as error:
        return str(error)
    return ""


_EXPECTED: Final = re.compile(
    r"Expected `(?P<kinds>[^`]+)`(?: of length)?(?: (?P<bound>[<>]=) (?P<limit>[\d.]+))?.*"
)


def _expected(message: str, kind: Any, meta: Meta | None) -> str:
    """What is expected of a value, from msgspec's message about it."""
    described = inspect.type_info(kind)
    if isinstance(described, inspect.LiteralType):
        return f"one of {', '.join(map(str, described.values))}"
    if isinstance(described, inspect.EnumType):
        return f"one of {', '.join(str(member.value) for member in described.cls)}"
    parsed, extra = _EXPECTED.fullmatch(message), (meta.extra or {}) if meta is not None else {}
    if parsed is None:
        return f"another value ({message})"
    if meta is not None and parsed["limit"] and parsed["kinds"] in ("int", "float"):
        bounds = _bounds(meta)
        return f"{bounds}{extra.get('unit', '')}" if meta.le is not None else extra.get("expected", bounds)
    if parsed["limit"]:
        return _LENGTHS[f"{parsed['kinds']}{parsed['bound']}"].format(parsed["limit"])
    names = [_KINDS.get(name, name) for name in parsed["kinds"].split(" | ")]
    return str(extra.get("expected", " or ".join(names)))


def _bounds(meta: Meta) -> str:
    if meta.ge is None:
        return f"at most {meta.le:.12g}"
    return f"at least {meta.ge:.12g}" if meta.le is None else f"{meta.ge:.12g} to {meta.le:.12g}"
