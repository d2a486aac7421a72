# SPDX-License-Identifier: AGPL-3.0-or-later
"""Builds the parts into a running service: a node of one or more, and the worklist while it is open here."""
