# SPDX-License-Identifier: AGPL-3.0-or-later
"""Everything that is not known to treat every path alike counts as a request filter."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from orthanc_ups.config import read_orthanc_settings
from orthanc_ups.orthanc.loopback import Loopback
from orthanc_ups.orthanc.request_filters import OWN_SCRIPT, judges_by_path, loaded_plugins
from orthanc_ups.store.port import StoreUnavailable

PLAIN = ("explorer.js", "python", "dicom-web", "orthanc-explorer-2", "postgresql-index")


def judges(*plugins: str, **raw: Any) -> bool:
    return judges_by_path(read_orthanc_settings({"PythonScript": str(OWN_SCRIPT), **raw}), plugins or PLAIN)


def test_orthanc_itself_and_plugins_without_filter_do_not_judge_by_path() -> None:
    assert not judges()
    assert not judges(LuaScripts=[], ExecuteLuaEnabled=False, AuthenticationEnabled=True)


@pytest.mark.parametrize("plugin", ["authorization", "education", "a plugin of tomorrow", ""])
def test_any_other_plugin_may(plugin: str) -> None:
    assert judges(*PLAIN, plugin)


@pytest.mark.parametrize("raw", [{"LuaScripts": ["filter.lua"]}, {"ExecuteLuaEnabled": True}])
def test_lua_may(raw: dict[str, Any]) -> None:
    assert judges(**raw)


def test_a_script_of_the_site_may_and_so_may_one_that_cannot_be_found(tmp_path: Path) -> None:
    script = tmp_path / "ups_plugin.py"
    assert judges(PythonScript=str(script))
    script.write_text("import orthanc_ups")
    assert judges(PythonScript=str(script))
    assert judges(PythonScript="")


def test_a_link_to_our_script_is_our_script(tmp_path: Path) -> None:
    link = tmp_path / "plugin.py"
    link.symlink_to(OWN_SCRIPT)
    assert not judges(PythonScript=str(link))


def test_orthanc_is_asked_again_if_it_does_not_list_its_plugins() -> None:
    loopback = Loopback("http://127.0.0.1:1")

    async def ask() -> None:
        async with loopback:
            await loaded_plugins(loopback)

    with pytest.raises(StoreUnavailable):
        asyncio.run(ask())
