# SPDX-License-Identifier: Apache-2.0
"""The model: one vocabulary of frozen values for every policy API, every engine and every tool.

Charter: what lives here is a value that cannot be built wrong (constructors validate) and never changes. Nothing
here knows a wire format, a kernel, a file or a clock. "Any", "none" and "these" are three different values
everywhere (``AnyPeer`` / ``Peers(())`` / ``Peers((…))``), and no truth test on a collection decides a verdict.
"""
