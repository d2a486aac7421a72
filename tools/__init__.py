# SPDX-License-Identifier: AGPL-3.0-or-later
"""Programs for the command line beside the plugin."""
