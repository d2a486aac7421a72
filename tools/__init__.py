# SPDX-License-Identifier: AGPL-3.0-or-later
"""Command-line programs around the plugin."""
