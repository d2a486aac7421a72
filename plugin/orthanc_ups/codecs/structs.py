# SPDX-License-Identifier: AGPL-3.0-or-later
"""JSON objects as msgspec structs, with every mistake named: which key, what it is, and what is expected."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, TypeVar, get_args

import msgspec
from msgspec import inspect

T = TypeVar("T", bound=msgspec.Struct)
_LONGEST: Final = 60
_KINDS: Final[Mapping[str, str]] = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_LIMITS: Final[Mapping[str, str]] = {
    "str<=": "a string of at most {} characters",
    "str>=": "a string of at least {} characters",
    "int<=": "a whole number of at most {}",
    "int>=": "a whole number of at least {}",
    "float<=": "a number of at most {}",
    "float>=": "a number of at least {}",
    "array<=": "a list of at most {} entries",
    "array>=": "a list of at least {} entries",
}


@dataclass(frozen=True, slots=True)
class KeyFault:
    """A key that is not what it must be.

    Attributes:
        path: from the outermost object, such as ``inputs[2].level``; empty for that object itself.
        reason: continues a sentence that begins with the path, such as ``is 5, expected a string``.
    """

    path: str
    reason: str

    def __str__(self) -> str:
        return f'"{self.path}" {self.reason}' if self.path else self.reason


class WrongKeys(ValueError):
    """An object is not what its struct says. ``faults`` has every key at fault; the text names them all."""

    def __init__(self, faults: tuple[KeyFault, ...]) -> None:
        super().__init__("; ".join(map(str, faults)))
        self.faults = faults


def decode(struct: type[T], content: object, *, strict: bool = True) -> T:
    """An object that was read from JSON (or a query) as a struct.

    Args:
        struct: with ``forbid_unknown_fields``, or unknown keys are ignored.
        content: as a JSON parser gives it.
        strict: False takes texts for numbers and truth values, as in a query.

    Raises:
        WrongKeys: it is no object, or some keys are wrong, missing or unknown.
    """
    try:
        return msgspec.convert(content, struct, strict=strict)
    except msgspec.ValidationError as error:
        check(struct, content, strict=strict)
        raise WrongKeys((KeyFault("", str(error)),)) from None


def check(struct: type[msgspec.Struct], content: object, *, strict: bool = True) -> None:
    """Raise WrongKeys with every key at fault. ``content`` is as a JSON parser gives it."""
    if not isinstance(content, Mapping):
        raise WrongKeys((KeyFault("", f"expected an object, not {shown(content)}"),))
    if faults := tuple(_faults(struct, content, strict)):
        raise WrongKeys(faults)


def _faults(struct: type[msgspec.Struct], content: Mapping[Any, Any], strict: bool) -> Iterator[KeyFault]:
    """The first fault of each key."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    config = struct.__struct_config__
    if config.forbid_unknown_fields:
        yield from (_unknown(str(key), fields) for key in content if key not in fields)
    for key, field in fields.items():
        if key not in content:
            if field.required:
                yield KeyFault(key, "is missing")
            continue
        try:
            _try(content[key], field.type, strict)
        except msgspec.ValidationError as error:
            yield _fault(str(error), key, content[key], field.type)


def _try(value: object, kind: Any, strict: bool = True) -> None:
    """Raise ValidationError unless a value is of a type. By way of JSON: ``convert`` refuses ``Raw``."""
    msgspec.json.decode(msgspec.json.encode(value), type=kind, strict=strict)


def _unknown(key: str, fields: Mapping[str, object]) -> KeyFault:
    near = get_close_matches(key, fields, 1)
    hint = f'; did you mean "{near[0]}"?' if near else f"; expected {', '.join(fields)}"
    return KeyFault(key[:_LONGEST], f"is unknown{hint}")


_MESSAGE: Final = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?")
_EXPECTED: Final = re.compile(
    r"Expected `(?P<kinds>[^`]+)`(?: of length)?(?: (?P<bound>[<>]=) (?P<limit>\d+))?.*"
)
_FIELD: Final = re.compile(r"Object (?:missing required|contains unknown) field `(?P<name>.*)`")
_STEP: Final = re.compile(r"\[(?P<index>\d+)\]|\.(?P<key>[^.\[]+)")


def _fault(message: str, key: str, value: Any, kind: Any) -> KeyFault:
    """Msgspec's message about a value and what is in it, in our words."""
    parsed = _MESSAGE.fullmatch(message)
    assert parsed is not None
    below, described = parsed["path"] or "", inspect.type_info(kind)
    if below.startswith("[...]") and isinstance(value, Mapping):
        return _fault_of_member(key, value, get_args(kind)[1])
    for step in _STEP.finditer(below):
        value = _member(value, step)
        described = _described_member(described, step)
    path, what = f"{key}{below}", parsed["what"]
    if field := _FIELD.fullmatch(what):
        state = "is missing" if "missing" in what else "is unknown"
        return KeyFault(f"{path}.{field['name']}", state)
    return KeyFault(path, f"is {shown(value)}, expected {_expected(what, described)}")


def _fault_of_member(key: str, members: Mapping[str, Any], kind: Any) -> KeyFault:
    """Msgspec does not say which member of a dictionary is wrong."""
    for name, member in members.items():
        try:
            _try(member, kind)
        except msgspec.ValidationError as error:
            return _fault(str(error), f"{key}.{name}", member, kind)
    raise AssertionError("no member is wrong")


def _member(value: Any, step: re.Match[str]) -> Any:
    if step["index"]:
        return value[int(step["index"])]
    return value.get(step["key"]) if isinstance(value, Mapping) else value


def _plain(described: inspect.Type) -> inspect.Type:
    """Without its comment, and without null beside it."""
    if isinstance(described, inspect.Metadata):
        return _plain(described.type)
    if isinstance(described, inspect.UnionType):
        return _plain(next(kind for kind in described.types if not isinstance(kind, inspect.NoneType)))
    return described


def _described_member(described: inspect.Type, step: re.Match[str]) -> inspect.Type:
    described = _plain(described)
    if isinstance(described, inspect.StructType):
        return next((field.type for field in described.fields if field.encode_name == step["key"]), described)
    if isinstance(described, inspect.ListType):
        return described.item_type
    return described.value_type if isinstance(described, inspect.DictType) else described


def _expected(what: str, described: inspect.Type) -> str:
    described = _plain(described)
    if isinstance(described, inspect.LiteralType):
        return f"one of {', '.join(map(str, described.values))}"
    if isinstance(described, inspect.EnumType):
        return f"one of {', '.join(str(member.value) for member in described.cls)}"
    parsed = _EXPECTED.fullmatch(what)
    if parsed is None:
        return f"another value ({what})"
    kinds = [_KINDS.get(kind, kind) for kind in parsed["kinds"].split(" | ")]
    if parsed["limit"]:
        return _LIMITS[f"{parsed['kinds']}{parsed['bound']}"].format(parsed["limit"])
    return " or ".join(kinds)


def shown(value: object) -> str:
    """A value for a message, shortened."""
    text = repr(value) if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
