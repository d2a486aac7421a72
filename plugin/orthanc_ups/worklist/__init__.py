# SPDX-License-Identifier: AGPL-3.0-or-later
"""The worklist: the only writer. Load, decide, compare-and-set, hand to delivery."""
