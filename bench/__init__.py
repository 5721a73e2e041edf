# SPDX-License-Identifier: Apache-2.0
"""``make bench``: measurements on this machine, in this run. One module for each question; nothing passes or fails."""
