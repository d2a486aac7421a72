# SPDX-License-Identifier: AGPL-3.0-or-later
"""Thin skins between the network and the worklist. Wires never import each other."""
