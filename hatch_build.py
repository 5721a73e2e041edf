# SPDX-License-Identifier: Apache-2.0
"""Compiles the eBPF program into the wheel, so that a node needs no compiler.

How it is compiled is said once, in the package's own ``build.py``, which is run from its path: nothing of ringfence is
installed when this runs. An editable install compiles at first use instead (docs/decisions/0009-ebpf-object.md).
"""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = "ringfence/dataplanes/ebpf"
WITHOUT = "or leave it to the machines that run it: HATCH_BUILD_NO_HOOKS=true"


class ObjectHook(BuildHookInterface[Any]):
    """Adds the object file to what the wheel holds; the source tree stays as it is."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, before the files of the wheel are gathered."""
        self._work = tempfile.TemporaryDirectory()
        if version == "editable":
            return
        build = _build_module(Path(self.root) / "src" / FOLDER / "build.py")
        try:
            made = build.compile_into(Path(self._work.name))
        except build.CannotCompile as error:
            self.app.abort(f"ringfence's eBPF program cannot be compiled: {error}; {build.REMEDY}, {WITHOUT}")
        build_data["force_include"][str(made)] = f"{FOLDER}/{made.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Take away what was compiled: the wheel has it."""
        self._work.cleanup()


def _build_module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("ringfence_ebpf_build", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
