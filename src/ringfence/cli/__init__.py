# SPDX-License-Identifier: Apache-2.0
"""The command line, one file per command. Commands import what they need when they run, so ``--help`` stays quick."""
