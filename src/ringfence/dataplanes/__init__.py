# SPDX-License-Identifier: Apache-2.0
"""The engines, one folder each: render (pure), observe (reads), apply (commits). They never import one another."""
