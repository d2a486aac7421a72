# SPDX-License-Identifier: AGPL-3.0-or-later
"""Start Orthanc in the container, with settings from environment variables.

    ORTHANC__NAME=Radiology                   "Name": "Radiology"
    ORTHANC__UPS__HTTP_PORT=8043              "Ups": {"HttpPort": 8043}
    ORTHANC__DICOM_MODALITIES='{"ct": …}'     an object; likewise lists, true, false
    ORTHANC__POSTGRESQL__PASSWORD_FILE=/run/secrets/database    the content of a file, as text

Each ``__`` leads into a section, and a name is written with underscores. Variables win over the files of the
configuration folder; of its files, the later one (by name) wins.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any, Final, NoReturn

FOLDER: Final = "/etc/orthanc-ups"
WRITTEN: Final = Path(os.environ.get("ORTHANC_UPS_CONFIGURATION", "/tmp/orthanc-ups/orthanc.json"))  # noqa: S108
PREFIX: Final = "ORTHANC__"
OF_A_FILE: Final = "_FILE"
PASSWORD: Final = "ORTHANC_UPS_PASSWORD"  # noqa: S105
# Settings of Orthanc that are not written as their words would be.
IRREGULAR: Final = (
    "PostgreSQL",
    "MySQL",
    "ODBC",
    "HttpsCACertificates",
    "StoreMD5ForAttachments",
    "CaseSensitivePN",
)
_COMMENT_OR_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
_EXPANDED: Final = re.compile(r"\$\{")

Json = dict[str, Any]


class ContainerError(Exception):
    """The container cannot start; the text says why."""


def main(words: list[str]) -> NoReturn:
    """Become Orthanc. Another configuration than that of the image is taken as it is, if no variable changes it."""
    try:
        if words == [FOLDER] or overrides_in(os.environ):
            WRITTEN.parent.mkdir(parents=True, exist_ok=True)
            WRITTEN.touch(mode=0o600)
            WRITTEN.write_text(json.dumps(configuration(Path(words[0]), dict(os.environ)), indent=1))
            words = [str(WRITTEN), *words[1:]]
    except (ContainerError, OSError, ValueError) as error:
        sys.stderr.write(f"orthanc-ups: {error}\n")
        sys.exit(64)
    os.execvp("Orthanc", ["Orthanc", *words])  # noqa: S606, S607


def configuration(path: Path, environment: dict[str, str]) -> Json:
    """Files and variables in one.

    Raises:
        ContainerError: a file or a variable cannot be understood, or a password is missing.
        OSError: a file cannot be read.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    result: Json = {}
    for file in files:
        _merge(result, read(file))
    for name, text in overrides_in(environment).items():
        _set(result, name.removeprefix(PREFIX).split("__"), _value(name, text))
    _require_password(result, environment)
    return result


def read(file: Path) -> Json:
    """A configuration file of Orthanc: JSON with comments. Raises ContainerError, OSError."""
    plain = _COMMENT_OR_STRING.sub(lambda match: match[0] if match[0][0] == '"' else " ", file.read_text())
    try:
        content = json.loads(plain)
    except ValueError as error:
        raise ContainerError(f"{file} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ContainerError(f"{file} is no object of JSON")
    return content


def overrides_in(environment: Any) -> dict[str, str]:
    """The variables that are settings."""
    return {name: text for name, text in sorted(environment.items()) if name.startswith(PREFIX)}


def _merge(base: Json, more: Json) -> None:
    for key, value in more.items():
        present = base.get(key)
        if isinstance(present, dict) and isinstance(value, dict):
            _merge(present, value)
        elif key == "Plugins" and isinstance(present, list):
            base[key] = [*present, *(plugin for plugin in value if plugin not in present)]
        else:
            base[key] = value


def _set(section: Json, names: list[str], value: Any) -> None:
    if names[-1].endswith(OF_A_FILE):
        names = [*names[:-1], names[-1].removesuffix(OF_A_FILE)]
    for name in names[:-1]:
        inner = section.setdefault(key_of(name, section), {})
        if not isinstance(inner, dict):
            raise ContainerError(f"{PREFIX}{'__'.join(names)}: {name} is no section")
        section = inner
    section[key_of(names[-1], section)] = value


def key_of(name: str, section: Json) -> str:
    """``HTTP_PORT`` is ``HttpPort``, unless the section or Orthanc writes these words in another way."""
    words = name.replace("_", "").lower()
    for key in (*section, *IRREGULAR):
        if key.lower() == words:
            return key
    return "".join(word.capitalize() for word in name.split("_"))


def _value(name: str, text: str) -> Any:
    """JSON is taken as such, anything else as text; a file holds text, or an object or a list."""
    if name.endswith(OF_A_FILE):
        text = _content(name, text)
        if text[:1] not in ("{", "["):
            return text
    try:
        return json.loads(text)
    except ValueError as error:
        if text[:1] in ("{", "["):
            raise ContainerError(f"{name} is no JSON: {error}") from error
        return text


def _content(name: str, path: str) -> str:
    try:
        return Path(path).read_text().rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise ContainerError(f"{name}: {error}") from error


def _require_password(result: Json, environment: dict[str, str]) -> None:
    """Of the user ``admin``, where the configuration names no users."""
    if not result.get("AuthenticationEnabled") or result.get("RegisteredUsers"):
        return
    password = environment.get(PASSWORD, "")
    if PASSWORD + OF_A_FILE in environment:
        password = _content(PASSWORD + OF_A_FILE, environment[PASSWORD + OF_A_FILE])
    if not password:
        raise ContainerError(
            f"set {PASSWORD} (or {PASSWORD}{OF_A_FILE}), the password of the user 'admin', or "
            f"{PREFIX}REGISTERED_USERS, an object of users and passwords"
        )
    if _EXPANDED.search(password):
        raise ContainerError(
            f"{PASSWORD} may not contain ${{, which Orthanc would take for the name of a variable"
        )
    result["RegisteredUsers"] = {"admin": password}


if __name__ == "__main__":
    main(sys.argv[1:])
