# SPDX-License-Identifier: AGPL-3.0-or-later
"""Rules of a site (``Ups.Rules``): workitems are made, changed and closed because of what happens in Orthanc."""
