# SPDX-License-Identifier: Apache-2.0
"""Lint: what is probably not meant in policies that an API server accepts.

Charter: few and exact. A rule judges only by what is known: nothing is said of pods that nobody told of. One module
for each family of rules; ``rules`` is the table of all of them, ``world`` is what they judge by, ``run`` asks them.
Reads no files and prints nothing.
"""
