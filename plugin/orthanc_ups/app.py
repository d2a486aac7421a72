# SPDX-License-Identifier: AGPL-3.0-or-later
"""The plugin as Orthanc sees it: what it registers while the script loads, and how it starts and stops."""

from __future__ import annotations

import asyncio
import json
import logging
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Final

from . import __version__
from .config import ConfigurationError, read_configuration
from .dicomweb import orthanc_port
from .dicomweb import tls as web_tls
from .dimse import tls as dimse_tls
from .management import pages as orthanc_pages
from .management.explorer_files import orthanc_explorer_buttons
from .management.operating import start_warnings
from .management.templates import read_templates
from .modality.self_test import worklists_plugin_is_loaded
from .modality.worklist_callback import WorklistRequests, folder_of
from .monitoring.audit import emitter
from .monitoring.metrics import Instruments, publisher
from .orthanc import logs
from .orthanc.clean_exit import skip_the_second_delete
from .orthanc.hooks import ChangeForwarder, SiteCallbacks, UploadGuard
from .orthanc.loop_thread import LoopThread
from .orthanc.loopback import own_url
from .orthanc.sdk import Orthanc, RestCallback, key_values
from .orthanc.stop_notice import goes_on, told_to_stop
from .rules.change_listener import ChangeListener
from .rules.definitions import check_loops, read_rules
from .settings import KEY_VALUE, METADATA, OrthancSettings, Settings
from .site.site import Site
from .store.choice import SHARED_KEY_VALUE_STORE, WITHOUT_KEY_VALUE_STORES
from .store.shelf_set import WITHOUT_CHECK_REVISIONS
from .store.shelves import Uploads, own_instances
from .webhook.subscriptions import filter_of

_log = logging.getLogger("orthanc_ups")
_PLUGIN: Final = "python"
"""Orthanc's name for the plugin that loads scripts, which has a single description and link."""
_LOGGED_AFTER: Final = 0.05
_STOP_WITHIN: Final = 8.0
_JOIN_WITHIN: Final = 2.0

# The Python plugin 7.1 releases its routes without holding the GIL, and crashes if it holds the last reference.
_routes: Final[list[RestCallback]] = []


class Plugin:
    """Created by ``orthanc_ups.install``. Everything after ``register`` happens in Orthanc's callbacks."""

    def __init__(self, orthanc: Orthanc, callbacks: SiteCallbacks) -> None:
        """``callbacks``: from the script that installs the plugin."""
        self._orthanc = orthanc
        self._callbacks = callbacks
        self._log: logs.OrthancHandler
        self._thread: LoopThread
        self._site: Site
        self._closing: asyncio.Future[None] | None = None

    def register(self) -> None:
        """Read orthanc.json and register everything. Raises SystemExit, which ends Orthanc's start, if it is wrong."""
        self._log = logs.attach(self._orthanc)
        configuration = json.loads(self._orthanc.GetConfiguration())
        try:
            settings, orthanc_settings = read_configuration(configuration)
            if not settings.enable:
                _log.warning('The UPS plugin is loaded but not enabled: set "Ups.Enable" to true')
                self._register_site_callbacks()
                return
            _check(settings, orthanc_settings)
            self._check_store(settings, orthanc_settings)
            self._prepare(settings, orthanc_settings)
        except ConfigurationError as error:
            _log.error("%s", error)
            raise SystemExit(1) from None

    def _check_store(self, settings: Settings, orthanc_settings: OrthancSettings) -> None:
        has_calls = key_values(self._orthanc) is not None
        if settings.store == KEY_VALUE and not has_calls:
            raise ConfigurationError(WITHOUT_KEY_VALUE_STORES)
        if settings.store == KEY_VALUE and orthanc_settings.shares_database:
            raise ConfigurationError(SHARED_KEY_VALUE_STORE)
        only_metadata = settings.store == METADATA or not has_calls
        if only_metadata and not orthanc_settings.check_revisions:
            raise ConfigurationError(WITHOUT_CHECK_REVISIONS)

    def _prepare(self, settings: Settings, orthanc_settings: OrthancSettings) -> None:
        skip_the_second_delete()
        uploads = Uploads()
        self._own = own_instances(uploads)
        self._thread = LoopThread("ups", self._on_thread)
        token = self._orthanc.GenerateRestApiAuthorizationToken()
        guard = UploadGuard(self._orthanc, self._own, self._callbacks)
        self._worklists = self._worklist_requests(settings, orthanc_settings)
        self._change_listener = (
            ChangeListener(self._orthanc, self._thread.call_soon) if settings.rules else None
        )
        self._site = Site(
            settings,
            orthanc_settings,
            uploads,
            token,
            self._thread,
            self._instruments(guard, orthanc_settings),
            key_values(self._orthanc),
            self._worklists,
            self._change_listener,
        )
        self._register_callbacks(guard)
        self._register_routes(settings)
        self._register_pages()
        for warning in start_warnings(settings, orthanc_settings):
            _log.warning("%s", warning)

    def _worklist_requests(
        self, settings: Settings, orthanc_settings: OrthancSettings
    ) -> WorklistRequests | None:
        if not settings.modality_worklist.enable:
            return None
        return WorklistRequests(
            self._thread.submit,
            settings,
            orthanc_settings,
            folder_of(orthanc_settings),
            self._callbacks.worklist,
            is_first=not (orthanc_settings.worklists_enabled and worklists_plugin_is_loaded()),
        )

    def _instruments(self, guard: UploadGuard, orthanc_settings: OrthancSettings) -> Instruments:
        emit = emitter(self._orthanc, allow_threads=orthanc_settings.allow_threads)
        return Instruments(publisher(self._orthanc), emit, lambda: guard.refusals)

    def _register_callbacks(self, guard: UploadGuard) -> None:
        self._orthanc.RegisterReceivedInstanceCallback(guard.received)
        self._orthanc.RegisterIncomingCStoreInstanceFilter(guard.c_store)
        worklist = self._worklists or self._callbacks.worklist
        if worklist is not None:
            self._orthanc.RegisterWorklistCallback(worklist)
        self._orthanc.RegisterOnChangeCallback(
            ChangeForwarder(
                self._orthanc,
                self._own,
                self._thread.call_soon,
                shelves_deleted=self._site.shelves_deleted,
                modalities_changed=self._site.modalities_changed,
                started=self._started,
                stopped=self._stopped,
                rules=self._change_listener,
                site=self._callbacks,
            )
        )

    def _register_site_callbacks(self) -> None:
        if self._callbacks.received_instance is not None:
            self._orthanc.RegisterReceivedInstanceCallback(self._callbacks.received_instance)
        if self._callbacks.c_store_filter is not None:
            self._orthanc.RegisterIncomingCStoreInstanceFilter(self._callbacks.c_store_filter)
        if self._callbacks.on_change is not None:
            self._orthanc.RegisterOnChangeCallback(self._callbacks.on_change)
        if self._callbacks.worklist is not None:
            self._orthanc.RegisterWorklistCallback(self._callbacks.worklist)

    def _register_routes(self, settings: Settings) -> None:
        for pattern in orthanc_port.patterns(settings):
            self._register_route(pattern, self._site.answer_ups_rs)
        for pattern in orthanc_pages.PATTERNS:
            self._register_route(pattern, self._site.answer_page)

    def _register_route(self, pattern: str, answer: RestCallback) -> None:
        _routes.append(answer)
        self._orthanc.RegisterRestCallback(pattern, answer)

    def _register_pages(self) -> None:
        self._orthanc.ExtendOrthancExplorer(orthanc_explorer_buttons())
        self._orthanc.SetRootUri2(_PLUGIN, "../ups/app/index.html")
        description = f"UPS worklist {__version__}: DICOM Unified Procedure Step over DIMSE and DICOMweb"
        self._orthanc.SetDescription2(_PLUGIN, description)

    # --- start and stop ---

    def _on_thread(self) -> None:
        """Prepare the thread of the loop, before anything else runs on it."""
        self._orthanc.SetCurrentThreadName("ups")
        self._log.gather(lambda work: self._thread.loop.call_later(_LOGGED_AFTER, work))

    def _started(self) -> None:
        self._thread.start()
        self._thread.submit(self._site.run())
        self._thread.submit(self._close_in_time())

    async def _close_in_time(self) -> None:
        """Close before ORTHANC_STOPPED, which Orthanc does not send while clients keep writing."""
        while True:
            await told_to_stop()
            await self._close()
            await goes_on()
            _log.error("Orthanc seemed to stop but is still running; opening the worklist again")
            self._closing = None
            self._site.open_again()

    async def _close(self) -> None:
        """Close the site, once."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._site.stop())
        await asyncio.shield(self._closing)

    def _stopped(self) -> None:
        """End every thread of the plugin: Orthanc finalizes Python after this."""
        try:
            self._thread.submit(self._close()).result(_STOP_WITHIN)
        except (FutureTimeoutError, asyncio.CancelledError):
            _log.error("The UPS service did not stop in time; ending it anyway")
        except Exception:
            _log.exception("The UPS service did not stop cleanly")
        if not self._thread.stop(_JOIN_WITHIN):
            _log.error("The thread of the UPS service did not end")
        self._log.settle()


def _check(settings: Settings, orthanc_settings: OrthancSettings) -> None:
    """Check rules, templates, webhook filters, URL and certificates. Raises ConfigurationError."""
    rules = read_rules(settings.rules, read_templates(settings.templates), settings.public_url)
    check_loops(rules, settings.worklist_label)
    try:
        for index, webhook in enumerate(settings.webhooks):
            filter_of(webhook, index)
        own_url(orthanc_settings)
        dimse_tls.server_context(orthanc_settings)
        web_tls.server_context(orthanc_settings)
    except (ValueError, dimse_tls.TlsError, web_tls.WebTlsError) as error:
        raise ConfigurationError(str(error)) from error
