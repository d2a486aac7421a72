# SPDX-License-Identifier: AGPL-3.0-or-later
"""Data sets as documents of the Native DICOM Model (PS3.19 Annex A.1), without loss.

Private elements keep their whole tag and name their creator as well. A carriage return leaves as a character
reference, as XML would swallow it. The one character that DICOM allows in texts and XML does not, FORM FEED,
makes its attribute leave as InlineBinary: base64 of UTF-8; ``dicom_xml_reader`` takes that back.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from typing import Any, Final
from xml.sax.saxutils import escape, quoteattr

from ..core import tags
from ..core.dataset import BINARY_VRS, DataSet, Element, element, text
from .attribute_names import is_private, keyword_of
from .dicom_xml_reader import COMPONENTS, GROUPS, NAMESPACE, decode
from .element_values import FLOAT_VRS

__all__ = ["decode", "encode"]

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
    for tag, found in dataset.items():
        yield f'<DicomAttribute tag="{tag}" vr="{found["vr"]}"{_named(dataset, tag)}'
        content = "".join(_content(found))
        yield f">{content}</DicomAttribute>" if content else "/>"


def _named(dataset: DataSet, tag: str) -> str:
    if not is_private(tag):
        keyword = keyword_of(tag)
        return f' keyword="{keyword}"' if keyword else ""
    creator = text(dataset, f"{tag[:4]}00{tag[4:6]}") if tag[4:] > "00FF" else ""
    return f" privateCreator={quoteattr(creator)}" if creator else ""


def _content(found: Element) -> Iterator[str]:
    vr, listed = found["vr"], found.get("Value", [])
    if vr in BINARY_VRS:
        binary = found.get("InlineBinary")
        yield f"<InlineBinary>{binary}</InlineBinary>" if binary else ""
    elif vr == "SQ":
        for number, item in enumerate(listed, 1):
            yield f'<Item number="{number}">{"".join(_attributes(item))}</Item>'
    elif vr == "PN":
        for number, name in enumerate(listed, 1):
            yield f'<PersonName number="{number}">{"".join(_groups(name or {}))}</PersonName>'
    else:
        yield _values([_written(vr, one) for one in listed])


def _groups(name: dict[str, str]) -> Iterator[str]:
    for group in GROUPS:
        if group in name:
            found = zip(COMPONENTS, name[group].split("^", len(COMPONENTS) - 1), strict=False)
            content = "".join(f"<{component}>{_escaped(part)}</{component}>" for component, part in found)
            yield f"<{group}>{content}</{group}>"


def _values(written: list[str]) -> str:
    if len(written) == 1 and _NOT_IN_XML.search(written[0]):
        return f"<InlineBinary>{b64encode(written[0].encode()).decode()}</InlineBinary>"
    return "".join(
        f'<Value number="{number}">{_escaped(one)}</Value>' for number, one in enumerate(written, 1)
    )


def _written(vr: str, one: Any) -> str:
    if one is None:
        return ""
    if vr in FLOAT_VRS:
        return _FLOATS.get(one) or repr(one)
    return str(one)


def _escaped(one: str) -> str:
    return escape(_NOT_IN_XML.sub("\ufffd", one), {"\r": "&#13;"})
