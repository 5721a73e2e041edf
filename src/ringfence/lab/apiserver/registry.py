# SPDX-License-Identifier: Apache-2.0
"""Which kinds are served now: the built-in table, and what CustomResourceDefinitions add and take away."""

from __future__ import annotations

from collections.abc import Iterable

from ringfence.lab.apiserver.resources import BUILT_IN, GROUP_ORDER, Resource


class Registry:
    """Kinds by group, version and plural. ``generation`` changes whenever the set of kinds does."""

    def __init__(self, built_in: Iterable[Resource] = BUILT_IN) -> None:
        self._resources: dict[tuple[str, str], dict[str, Resource]] = {}
        self.generation = 0
        for resource in built_in:
            self._resources.setdefault((resource.group, resource.version), {})[resource.plural] = resource

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        """Return the kind at a path (``apps``, ``v1``, ``deployments``)."""
        return self._resources.get((group, version), {}).get(plural)

    def of_kind(self, api_version: str, kind: str) -> Resource | None:
        """Return the kind that an object says it is."""
        group, _, version = api_version.rpartition("/")
        return next((r for r in self._resources.get((group, version), {}).values() if r.kind == kind), None)

    def all(self) -> list[Resource]:
        """Return every served version of every kind, in the order of discovery."""
        return [r for group, version in self.group_versions() for r in self.resources(group, version)]

    def resources(self, group: str, version: str) -> list[Resource]:
        """Return the kinds of one version of a group, by plural."""
        found = self._resources.get((group, version), {})
        return [found[plural] for plural in sorted(found)]

    def group_versions(self) -> list[tuple[str, str]]:
        """Return the served (group, version) pairs: built-in groups first, versions of a group newest first."""
        return sorted(self._resources, key=lambda pair: (_group_rank(pair[0]), _version_rank(pair[1])))

    def groups(self) -> dict[str, list[str]]:
        """Return the served versions of each group, preferred first."""
        found: dict[str, list[str]] = {}
        for group, version in self.group_versions():
            found.setdefault(group, []).append(version)
        return found

    def add(self, resource: Resource) -> None:
        """Serve a kind from now on."""
        self._resources.setdefault((resource.group, resource.version), {})[resource.plural] = resource
        self.generation += 1

    def remove_custom(self, group: str, plural: str) -> None:
        """Serve no version of a custom kind any more."""
        for pair in [pair for pair in self._resources if pair[0] == group]:
            resource = self._resources[pair].get(plural)
            if resource and resource.custom:
                del self._resources[pair][plural]
            if not self._resources[pair]:
                del self._resources[pair]
        self.generation += 1


def _group_rank(group: str) -> tuple[int, str]:
    return (GROUP_ORDER.index(group), "") if group in GROUP_ORDER else (len(GROUP_ORDER), group)


def _version_rank(version: str) -> tuple[int, int, int, str]:
    """Sort versions as Kubernetes does: v2 before v1 before v1beta2 before v1beta1 before v1alpha1 before the rest."""
    for stage, word in enumerate(("", "beta", "alpha")):
        major, found, minor = version.removeprefix("v").partition(word) if word else (version.removeprefix("v"), "", "")
        if version.startswith("v") and major.isdigit() and (minor.isdigit() if found else not word):
            return stage, -int(major), -int(minor or 0), ""
    return 3, 0, 0, version
