# SPDX-License-Identifier: AGPL-3.0-or-later
"""Orthanc as the plugin sees it: the SDK, its REST API over loopback, modalities, log, and quirks of the process."""
