# SPDX-License-Identifier: Apache-2.0
"""The oracle: what policies mean, read literally, one flow at a time.

Charter: slow and plain on purpose, so that a person can hold it against the specification. It shares only the model
with the compiler; any disagreement of the two is a bug in one of them.
"""
