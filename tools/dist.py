# SPDX-License-Identifier: AGPL-3.0-or-later
"""Build the files of a release into dist/: the wheel, the archive to unpack beside an Orthanc, and their hashes.

    python -m tools.dist          two builds of one commit are identical

The archive holds the plugin, its dependencies for CPython 3.11 to 3.14 (x86-64), a sample configuration, the documents,
the licences of all of these, a bill of materials (CycloneDX) and checksums.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Any, Final

from tools.lock import CHECKOUT, LOCK, PYTHONS, pip, requirements, target_options

NAME: Final = "orthanc-ups"
VERSION: Final = re.findall(
    r'^__version__ = "(.+)"$', (CHECKOUT / "plugin/orthanc_ups/__init__.py").read_text(), re.MULTILINE
)[0]
TOP_LEVEL_FILES: Final = (
    "README.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "LICENSE",
    "requirements.txt",
    "requirements.lock",
    "orthanc.json",
)
_MACHINE: Final = "x86_64"
_OLDEST_ZIP: Final = 315_532_800  # 1980: a wheel cannot be older
_NOT_SHIPPED: Final = ("__pycache__", "bin")


def main() -> int:
    """Build everything, and print the names and sizes of the files."""
    parser = argparse.ArgumentParser(
        prog="tools.dist", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--into", type=Path, default=CHECKOUT / "dist", help="folder (default: dist)")
    folder = parser.parse_args().into
    os.umask(0o022)
    folder.mkdir(parents=True, exist_ok=True)
    built = [build_wheel(folder), build_archive(folder)]
    (folder / "SHA256SUMS").write_text(
        "".join(f"{_sha256(file.read_bytes())}  {file.name}\n" for file in built)
    )
    for file in built:
        print(f"{file} ({file.stat().st_size / 1e6:.1f} MB)")
    return 0


def build_time() -> int:
    """The time of the files in a build, in seconds since the epoch: $SOURCE_DATE_EPOCH, else that of the commit."""
    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    if seconds is None and shutil.which("git"):
        shown = subprocess.run(
            ["git", "log", "-1", "--format=%ct"], cwd=CHECKOUT, capture_output=True, text=True
        )
        seconds = shown.stdout.strip() if shown.returncode == 0 else "0"
    return max(int(seconds or 0), _OLDEST_ZIP)


# --- the wheel ---


def build_wheel(folder: Path) -> Path:
    """Build the wheel for ``pip install``: the plugin, with its dependencies declared."""
    with tempfile.TemporaryDirectory() as build:
        source, target = Path(build, "source"), Path(build, "wheel")
        source.mkdir()
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copyfile(CHECKOUT / name, source / name)
        _copy_tree(CHECKOUT / "plugin", source / "plugin")
        os.environ["SOURCE_DATE_EPOCH"] = str(build_time())
        pip("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", target, source)
        (wheel,) = target.glob("*.whl")
        return Path(shutil.copyfile(wheel, folder / wheel.name))


# --- the archive ---


def build_archive(folder: Path) -> Path:
    """Build the archive, which can be unpacked beside an Orthanc without network access or pip."""
    top = f"{NAME}-{VERSION}"
    with tempfile.TemporaryDirectory() as build:
        root = Path(build, top)
        root.mkdir()
        for name in TOP_LEVEL_FILES:
            shutil.copyfile(CHECKOUT / name, root / name)
        for name in ("plugin", "docs"):
            _copy_tree(CHECKOUT / name, root / name)
        for python in PYTHONS:
            _install(python, root / "site" / f"python{python}")
        parts = list(_distributions(root / "site" / f"python{PYTHONS[0]}"))
        _copy_licences(root, parts)
        (root / "sbom.cdx.json").write_text(json.dumps(bill_of_materials(parts), indent=1) + "\n")
        files = sorted(file for file in root.rglob("*") if file.is_file())
        sums = "".join(f"{_sha256(file.read_bytes())}  {file.relative_to(root)}\n" for file in files)
        (root / "SHA256SUMS").write_text(sums)
        archive = folder / f"{top}-{_MACHINE}.tar.gz"
        archive.write_bytes(tarball(root))
    return archive


def _copy_tree(source: Path, target: Path) -> None:
    """Copy the files of a folder with mode 0644, regardless of the umask and the modes on this host."""
    for file in sorted(source.rglob("*")):
        if file.is_file() and not set(_NOT_SHIPPED) & set(file.relative_to(source).parts):
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
            copy.chmod(0o644)


def _install(python: str, site: Path) -> None:
    """Install the dependencies for a version of Python; each wheel is checked against requirements.lock."""
    with tempfile.TemporaryDirectory() as build:
        pinned, target = Path(build, "requirements.txt"), Path(build, "site")
        pins = {pin.partition("==")[0] for pin in requirements(python)}
        pinned.write_text("".join(block for block in locked_blocks() if block.partition("==")[0] in pins))
        options = (
            "--quiet",
            "--no-compile",
            "--require-hashes",
            "--root-user-action=ignore",
            *target_options(python, _MACHINE),
        )
        pip("install", *options, "--target", target, "--requirement", pinned)
        _copy_tree(target, site)


def locked_blocks() -> Iterator[str]:
    """The entries of requirements.lock, without environment markers: ``name==version`` and its hashes."""
    lines = [line for line in LOCK.read_text().splitlines(keepends=True) if not line.startswith("#")]
    block = ""
    for line in lines:
        block += line
        if not line.endswith("\\\n"):
            name, _, rest = block.partition("==")
            yield f"{name}=={rest}".replace(_marker(block), "")
            block = ""


def _marker(block: str) -> str:
    """The environment marker of an entry, with its semicolon; ``requirements`` has already evaluated it."""
    first = block.partition("\n")[0].removesuffix(" \\")
    _, semicolon, marker = first.partition(";")
    return semicolon + marker


def tarball(root: Path) -> bytes:
    """The folder as tar.gz: sorted, with one owner and time; equal files under site/ are hard links."""
    plain, time = io.BytesIO(), build_time()
    stored: dict[str, str] = {}
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in (root, *sorted(root.rglob("*"))):
            name = str(path.relative_to(root.parent))
            entry = tarfile.TarInfo(name)
            entry.mtime, entry.mode = time, 0o755 if path.is_dir() else 0o644
            if path.is_dir():
                entry.type = tarfile.DIRTYPE
                archive.addfile(entry)
                continue
            content = path.read_bytes()
            first = stored.setdefault(_sha256(content), name) if "/site/" in name else name
            if first != name:
                entry.type, entry.linkname = tarfile.LNKTYPE, first
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(plain.getvalue(), compresslevel=9, mtime=time)


# --- licences and bill of materials ---


def _distributions(site: Path) -> Iterator[tuple[Path, Message]]:
    for folder in sorted(site.glob("*.dist-info")):
        yield folder, Parser().parsestr((folder / "METADATA").read_text())


def licence_of(metadata: Message) -> str:
    """The licence that a package declares: as an SPDX expression, else as text, else by its classifiers."""
    expression = metadata.get("License-Expression") or metadata.get("License") or ""
    if expression and "\n" not in expression:
        return str(expression)
    classifiers = [
        str(value) for value in metadata.get_all("Classifier", []) if str(value).startswith("License ::")
    ]
    return ", ".join(value.rpartition(" :: ")[2] for value in classifiers) or "see its licence file"


def _copy_licences(root: Path, parts: list[tuple[Path, Message]]) -> None:
    for folder, metadata in parts:
        texts = [file for file in sorted(folder.rglob("*")) if _is_licence(file)]
        target = root / "licences" / f"{metadata['Name']}-{metadata['Version']}"
        target.mkdir(parents=True)
        for file in texts:
            shutil.copyfile(file, target / file.name)


def _is_licence(file: Path) -> bool:
    return file.is_file() and any(
        word in file.name.upper() for word in ("LICEN", "COPYING", "NOTICE", "AUTHORS")
    )


def bill_of_materials(parts: list[tuple[Path, Message]]) -> dict[str, Any]:
    """The bill of materials of the archive, in CycloneDX 1.5."""
    hashes = {block.partition("==")[0].lower(): block.split("sha256:")[1:] for block in locked_blocks()}
    components = [_component(metadata, hashes) for _, metadata in parts]
    own = f"pkg:pypi/{NAME}@{VERSION}"
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, own)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": NAME,
                "version": VERSION,
                "purl": own,
                "licenses": [{"license": {"id": "AGPL-3.0-or-later"}}],
            }
        },
        "components": components,
        "dependencies": [{"ref": own, "dependsOn": [component["bom-ref"] for component in components]}],
    }


def _component(metadata: Message, hashes: Mapping[str, list[str]]) -> dict[str, Any]:
    name, version = str(metadata["Name"]), str(metadata["Version"])
    purl, key = f"pkg:pypi/{name.lower()}@{version}", name.lower()
    digests = [text.split()[0] for text in hashes.get(key, hashes.get(key.replace("-", "_"), []))]
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "licenses": [{"license": {"name": licence_of(metadata)}}],
        "properties": [{"name": "wheel:sha256", "value": digest} for digest in digests],
    }


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
