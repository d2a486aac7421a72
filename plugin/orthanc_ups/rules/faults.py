# SPDX-License-Identifier: AGPL-3.0-or-later
"""The error for a value in a rule that cannot be used."""

from __future__ import annotations


class InvalidRuleValue(Exception):
    """A value in a rule cannot be used.

    Attributes:
        expected: the expected value, in words.
        key: key of the wrong value within the value that was read; "" for that value itself.
        value: the wrong value; ``...`` for the value that was read.
    """

    def __init__(self, expected: str, key: str = "", value: object = ...) -> None:
        super().__init__(expected)
        self.expected, self.key, self.value = expected, key, value
