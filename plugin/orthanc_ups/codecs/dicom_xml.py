# SPDX-License-Identifier: AGPL-3.0-or-later
"""Data sets as documents of the Native DICOM Model (PS3.19 Annex A.1) and back, without loss.

Private elements are written with their whole tag and the name of their creator. A carriage return is written as a
character reference, because XML would normalize it. FORM FEED is the only character that DICOM allows in texts and XML
does not: an attribute with it is written as InlineBinary, base64 of UTF-8, which is read back. Documents become data
sets while they are parsed, without a tree in between.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from xml.etree.ElementTree import ParseError
from xml.sax.saxutils import escape, quoteattr

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import XMLParser

from ..core import tags
from ..core.dataset import BINARY_VRS, FLOAT_VRS, NAME_GROUPS, DataSet, Element, element, text
from ..core.refusals import FaultList
from ..core.statuses import UpsError
from ..core.value_rules import DEEPEST
from .attribute_names import keyword_of, right_vr, tag_of_name, vr_of
from .corrections import Corrections
from .element_values import inner_values, refused
from .encoded_values import unpacked

NAMESPACE: Final = "http://dicom.nema.org/PS3.19/models/NativeDICOM"
COMPONENTS: Final = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")

# --- writing ---

_HEAD: Final = (
    f'<?xml version="1.0" encoding="UTF-8"?>\n<NativeDicomModel xmlns="{NAMESPACE}" xml:space="preserve">'
)
_TAIL: Final = "</NativeDicomModel>"
_NOT_IN_XML: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_UTF_8: Final = element("CS", "ISO_IR 192")
_FLOATS: Final[dict[object, str]] = {"NaN": "NaN", "Infinity": "INF", "-Infinity": "-INF"}


def encode(dataset: DataSet) -> bytes:
    """One data set as one document in UTF-8."""
    body = "".join(_attributes(dataset))
    if not body.isascii():
        marked = dict(sorted({**dataset, tags.SPECIFIC_CHARACTER_SET: _UTF_8}.items()))
        body = "".join(_attributes(marked))
    return f"{_HEAD}{body}{_TAIL}".encode()


def _attributes(dataset: DataSet) -> Iterator[str]:
    for tag, attribute in dataset.items():
        yield f'<DicomAttribute tag="{tag}" vr="{attribute["vr"]}"{_named(dataset, tag)}'
        content = "".join(_content(attribute))
        yield f">{content}</DicomAttribute>" if content else "/>"


def _named(dataset: DataSet, tag: str) -> str:
    if not tags.is_private(tag):
        keyword = keyword_of(tag)
        return f' keyword="{keyword}"' if keyword else ""
    creator = text(dataset, f"{tag[:4]}00{tag[4:6]}") if tag[4:] > "00FF" else ""
    return f" privateCreator={quoteattr(creator)}" if creator else ""


def _content(element: Element) -> Iterator[str]:
    vr, listed = element["vr"], element.get("Value", [])
    if vr in BINARY_VRS:
        binary = element.get("InlineBinary")
        yield f"<InlineBinary>{binary}</InlineBinary>" if binary else ""
    elif vr == "SQ":
        for number, item in enumerate(listed, 1):
            yield f'<Item number="{number}">{"".join(_attributes(item))}</Item>'
    elif vr == "PN":
        for number, name in enumerate(listed, 1):
            yield f'<PersonName number="{number}">{"".join(_groups(name or {}))}</PersonName>'
    else:
        yield _values([_written(vr, value) for value in listed])


def _groups(name: dict[str, str]) -> Iterator[str]:
    for group in NAME_GROUPS:
        if group in name:
            components = zip(COMPONENTS, name[group].split("^", len(COMPONENTS) - 1), strict=False)
            content = "".join(
                f"<{component}>{_escaped(part)}</{component}>" for component, part in components
            )
            yield f"<{group}>{content}</{group}>"


def _values(written: list[str]) -> str:
    if len(written) == 1 and _NOT_IN_XML.search(written[0]):
        return f"<InlineBinary>{b64encode(written[0].encode()).decode()}</InlineBinary>"
    return "".join(
        f'<Value number="{number}">{_escaped(value)}</Value>' for number, value in enumerate(written, 1)
    )


def _written(vr: str, value: Any) -> str:
    if value is None:
        return ""
    if vr in FLOAT_VRS:
        return _FLOATS.get(value) or repr(value)
    return str(value)


def _escaped(value: str) -> str:
    return escape(_NOT_IN_XML.sub("\ufffd", value), {"\r": "&#13;"})


# --- reading ---


_PARENTS: Final = {
    "NativeDicomModel": {""},
    "DicomAttribute": {"NativeDicomModel", "Item"},
    **{key: {"DicomAttribute"} for key in ("Value", "Item", "PersonName", "InlineBinary", "BulkData")},
    **{key: {"PersonName"} for key in NAME_GROUPS},
    **{key: set(NAME_GROUPS) for key in COMPONENTS},
}
_TAG: Final = re.compile(r"[0-9A-Fa-f]{8}")
_LEAVES: Final = frozenset({"Value", "InlineBinary", *COMPONENTS})
_TEXT_VRS: Final = frozenset({"LT", "ST", "UT"})
_LARGEST_GAP: Final = 1000


class MalformedXml(ValueError):
    """The text is not XML, or not of the Native DICOM Model; the message says where."""


@dataclass(slots=True)
class _Node:
    """An open XML element: its attributes, and the results of its children."""

    name: str
    attributes: dict[str, str]
    path: str
    text: list[str] = field(default_factory=list)
    children: list[tuple[str, Any]] = field(default_factory=list)  # name or number, and value
    dataset: DataSet = field(default_factory=dict)
    creators: dict[str, str] = field(default_factory=dict)
    binary: str | None = None


def decode(body: bytes, nesting: int = DEEPEST, corrections: Corrections | None = None) -> DataSet:
    """Read one document.

    Args:
        body: the document, in any encoding that it declares.
        nesting: the greatest allowed depth of nested sequences.
        corrections: some deviations from the model are corrected and noted here; if None, all are refused.

    Raises:
        MalformedXml: not XML, not of the Native DICOM Model, or with a document type or entities.
        UpsError: 0106 with the path of the attribute. Values are left to the rules of the core.
    """
    parser = XMLParser(target=_Builder(nesting, corrections), forbid_dtd=True)
    try:
        parser.feed(body)
        dataset: DataSet = parser.close()  # type: ignore[assignment]  # the result of _Builder, not an Element
    except MalformedXml:
        raise
    except DefusedXmlException:
        raise MalformedXml("a document type or entity is not allowed") from None
    except (ParseError, LookupError, ValueError) as error:
        raise MalformedXml(f"not XML of the Native DICOM Model: {error}") from None
    return dataset


class _Builder:
    """The target of the parser: ``start``, ``data`` and ``end`` for each element, ``close`` at the end."""

    def __init__(self, nesting: int, corrections: Corrections | None) -> None:
        self._nesting = nesting
        self._corrections = corrections
        self._open = [_Node("", {}, "")]
        self._result: DataSet = {}
        self._faults = FaultList()

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Open an element, if it is allowed here."""
        local = name.removeprefix("{" + NAMESPACE + "}")
        above = self._open[-1]
        if above.name not in _PARENTS.get(local, ()):
            raise MalformedXml(f"<{local[:64]}> is not expected in <{above.name or 'document'}>")
        path = above.path
        if local == "DicomAttribute":
            tag = self._tag(attributes, path)
            path = f"{path}.{tag}" if path else tag
            attributes = {**attributes, "tag": tag}
        elif local == "Item" and path.count(".") >= self._nesting:
            raise refused(path, "is nested too deeply")
        elif local == "BulkData":
            raise refused(path, "has BulkData: values must be inline (PS3.18 §11.1.4)")
        self._open.append(_Node(local, attributes, path))

    def _tag(self, attributes: dict[str, str], path: str) -> str:
        tag_text = attributes.get("tag", "")
        if _TAG.fullmatch(tag_text):
            return tag_text.upper()
        lenient = self._corrections if self._corrections and self._corrections.lenient else None
        tag = tag_of_name(tag_text or attributes.get("keyword", "")) if lenient else None
        if tag is None or lenient is None:
            raise MalformedXml(f"<DicomAttribute> has tag {tag_text[:64]!r}, expected 8 hexadecimal digits")
        lenient.note(f"{path}.{tag}" if path else tag, "was not named by 8 hexadecimal digits")
        return tag

    def data(self, characters: str) -> None:
        """Collect the text of a leaf; elsewhere only white space is allowed."""
        node = self._open[-1]
        if node.name in _LEAVES:
            node.text.append(characters)
        elif not characters.isspace():
            raise MalformedXml(f"text is not expected in <{node.name}>")

    def end(self, _name: str) -> None:
        """Close the element, and add its result to its parent."""
        node = self._open.pop()
        above = self._open[-1]
        if node.name == "NativeDicomModel":
            self._result = _finished(node)
        elif node.name == "DicomAttribute":
            try:
                _take_attribute(above, node, self._corrections)
            except UpsError as error:
                self._faults.add(error)
        elif node.name == "InlineBinary":
            above.binary = "".join("".join(node.text).split())
        elif node.name in COMPONENTS or node.name in NAME_GROUPS:
            above.children.append(
                (node.name, "".join(node.text) if node.name in COMPONENTS else _joined(node))
            )
        else:
            above.children.append((node.attributes.get("number", ""), _child(node)))

    def close(self) -> DataSet:
        """The data set of the document. Raises UpsError naming every attribute that cannot be read."""
        self._faults.refuse()
        return self._result


def _child(node: _Node) -> Any:
    if node.name == "Item":
        return _finished(node)
    if node.name == "PersonName":
        return {group: components for group, components in node.children if components} or None
    return "".join(node.text)


def _joined(node: _Node) -> str:
    """The components of a name joined by carets, without empty ones at the end."""
    parts = dict(node.children)
    last = max((number for number, name in enumerate(COMPONENTS) if name in parts), default=-1)
    return "^".join(parts.get(name, "") for name in COMPONENTS[: last + 1])


# --- attributes -------------------------------------------------------------------------------------


def _take_attribute(above: _Node, node: _Node, corrections: Corrections | None) -> None:
    tag = node.attributes["tag"]
    if tag in above.dataset:
        raise refused(node.path, "occurs twice")
    if tag == tags.SPECIFIC_CHARACTER_SET or tag.endswith("0000"):
        return
    vr = node.attributes.get("vr") or vr_of(tag)
    if not vr:
        raise refused(node.path, "has no vr")
    above.dataset[tag] = _element(tag, vr, node, corrections)
    creator = node.attributes.get("privateCreator")
    if creator and tags.is_private(tag):
        above.creators[tag] = creator


def _element(tag: str, vr: str, node: _Node, corrections: Corrections | None) -> Element:
    lenient = corrections if corrections and corrections.lenient else None
    if lenient and (dictionary_vr := right_vr(tag, vr)) != vr:
        corrected = _of_vr(dictionary_vr, node, lenient)
        if "InlineBinary" not in corrected:
            lenient.note(node.path, f"had VR {vr[:16]} and now has {dictionary_vr}")
            return corrected
    return _of_vr(vr, node, corrections)


def _of_vr(vr: str, node: _Node, corrections: Corrections | None) -> Element:
    if node.binary is not None:
        return _binary(vr, node, corrections)
    listed: list[Any]
    if vr == "SQ":
        listed = [item for _, item in sorted(_by_number(node).items())]
    elif vr == "PN":
        listed = _with_gaps(_by_number(node))
    else:
        listed = inner_values(vr, _with_gaps(_by_number(node)), node.path, corrections)
    return {"vr": vr, "Value": listed} if listed and listed != [None] else {"vr": vr}


def _binary(vr: str, node: _Node, corrections: Corrections | None) -> Element:
    if node.children:
        raise refused(node.path, "has both InlineBinary and values")
    if not node.binary:
        return {"vr": vr}
    if vr not in _TEXT_VRS:
        element = unpacked(vr, node.binary) if corrections and corrections.lenient else None
        if element and corrections:
            corrections.note(node.path, "had its value as InlineBinary")
        return element or {"vr": vr, "InlineBinary": node.binary}
    try:
        return {"vr": vr, "Value": [b64decode(node.binary, validate=True).decode()]}
    except (binascii.Error, UnicodeDecodeError):
        raise refused(node.path, "has InlineBinary that is not base64 of UTF-8") from None


def _by_number(node: _Node) -> dict[int, Any]:
    values: dict[int, Any] = {}
    for number, value in node.children:
        index = int(number) if number.isascii() and number.isdigit() else len(values) + 1
        if index in values or not 1 <= index <= len(values) + _LARGEST_GAP:
            raise refused(node.path, f"has a repeated or invalid value number {number[:16]!r}")
        values[index] = value
    return values


def _with_gaps(values: dict[int, Any]) -> list[Any]:
    """Values in the order of their numbers, None for a missing number."""
    return [values.get(index) for index in range(1, max(values, default=0) + 1)]


# --- private blocks ---------------------------------------------------------------------------------


def _finished(node: _Node) -> DataSet:
    for tag in sorted(node.creators):
        _reserve(node.dataset, tag, node.creators[tag], node.path)
    return dict(sorted(node.dataset.items()))


def _reserve(dataset: DataSet, tag: str, creator: str, path: str) -> None:
    """Reserve the block of a private element for the creator that it names (PS3.5 §7.8.1).

    A tag with block 00 has only the number of the element within its block; it is moved to the creator's block.
    """
    block = tag[4:6] if tag[4:6] >= "10" else _block(dataset, tag[:4], creator)
    reserved = f"{tag[:4]}00{block}"
    present = text(dataset, reserved)
    if present and present.strip() != creator.strip():
        raise refused(
            f"{path}.{tag}" if path else tag, "names a private creator other than that of its block"
        )
    moved = f"{tag[:4]}{block}{tag[6:]}"
    if moved != tag and moved in dataset:
        raise refused(f"{path}.{moved}" if path else moved, "occurs twice")
    dataset[reserved] = {"vr": "LO", "Value": [present or creator]}
    dataset[moved] = dataset.pop(tag)


def _block(dataset: DataSet, group: str, creator: str) -> str:
    blocks = [f"{number:02X}" for number in range(0x10, 0x100)]
    own = (block for block in blocks if text(dataset, f"{group}00{block}").strip() == creator.strip())
    free = (block for block in blocks if f"{group}00{block}" not in dataset)
    block = next(own, None) or next(free, None)
    if block is None:
        raise MalformedXml(f"group {group} has no free private block")
    return block
