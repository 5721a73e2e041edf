# SPDX-License-Identifier: Apache-2.0
"""The program that pods find at ``/agnhost``: connects, serves, and waits, with agnhost's flags, output and exit codes.

Charter: runs alone inside a pod, started as a zip file by a bare interpreter (no site, no environment), so it imports
the standard library only, only itself (relatively), and as little as possible: a pod's start waits for these imports.
Facts about agnhost (2.33 and later) were read from its documentation and behaviour; no code of it is here.
"""
