# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from ringfence.lab.images import ImageMissing, command_line, short_name

AGNHOST = "k8sgcr.azk8s.cn/e2e-test-images/agnhost:2.33"


@pytest.mark.parametrize(
    ("image", "name"),
    [
        (AGNHOST, "agnhost"),
        ("pause", "pause"),
        ("host:5000/busybox@sha256:0a1b", "busybox"),
        ("host:5000/a/nginx", "nginx"),
    ],
)
def test_registry_tag_and_digest_do_not_change_which_image_it_is(image: str, name: str) -> None:
    """A port of the registry is no tag."""
    assert short_name(image) == name


@pytest.mark.parametrize(
    ("image", "command", "arguments", "line"),
    [
        (AGNHOST, [], [], ["/agnhost", "pause"]),
        (AGNHOST, [], ["netexec", "--http-port=80"], ["/agnhost", "netexec", "--http-port=80"]),
        (AGNHOST, ["bash"], [], ["bash"]),
        (AGNHOST, ["/agnhost"], ["connect", "a:1"], ["/agnhost", "connect", "a:1"]),
        ("registry.k8s.io/pause:3.9", [], ["ignored"], ["/agnhost", "pause"]),
        ("busybox", [], [], ["sh"]),
        ("busybox:1.36", [], ["echo", "x"], ["echo", "x"]),
        ("anything", ["sleep"], ["5"], ["sleep", "5"]),
        ("anything", [], ["sleep", "5"], ["sleep", "5"]),
    ],
)
def test_command_and_args_override_what_the_image_says(
    image: str, command: list[str], arguments: list[str], line: list[str]
) -> None:
    """Kubernetes: command replaces the entrypoint, args replace the image's arguments, command alone drops them."""
    assert command_line(image, command, arguments) == line


def test_an_unknown_image_without_a_command_says_what_to_do() -> None:
    """There is no registry to pull from."""
    with pytest.raises(ImageMissing, match=r'"nginx:1\.27".*give the container a command'):
        command_line("nginx:1.27", [], [])
