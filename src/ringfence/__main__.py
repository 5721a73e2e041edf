# SPDX-License-Identifier: Apache-2.0
"""``python -m ringfence`` is the ``ringfence`` command."""

from ringfence.cli.main import main

main()
