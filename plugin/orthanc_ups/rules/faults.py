# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is wrong with a value in a rule."""

from __future__ import annotations


class Faulty(Exception):
    """A value in a rule cannot be used.

    Attributes:
        expected: what would be right, in words.
        key: below the key whose value was read, "" for that value itself.
        value: the one that is wrong; ``...`` for the value that was read.
    """

    def __init__(self, expected: str, key: str = "", value: object = ...) -> None:
        super().__init__(expected)
        self.expected, self.key, self.value = expected, key, value
