# SPDX-License-Identifier: AGPL-3.0-or-later
"""Builds the running service: this node, and the worklist while it is open here."""
