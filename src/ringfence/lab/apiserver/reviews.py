# SPDX-License-Identifier: Apache-2.0
"""Questions about oneself: ``kubectl auth can-i`` and ``whoami``. Whoever holds the lab's token may do everything."""

from __future__ import annotations

from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.objects import Object
from ringfence.lab.apiserver.requests import Target

USER = "lab-admin"
GROUPS = ("system:masters", "system:authenticated")


def review(api: Api, target: Target, asked: Object) -> Object:
    """Return the question with its answer in the status."""
    answer = {**asked, "metadata": {"creationTimestamp": api.now()}}
    match target.resource.kind:
        case "SelfSubjectReview":
            answer["status"] = {"userInfo": {"username": USER, "groups": list(GROUPS)}}
        case "SelfSubjectAccessReview":
            answer["status"] = {"allowed": True, "reason": "the lab's token is the administrator's"}
        case _:
            answer["status"] = {
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
                "incomplete": False,
            }
    return answer
