"""What the state's file lies on: whether it outlives a container, and how much room is left.

Pure, but for `in_container`: the table of mounts and the answer about room are given. A volume of
Kubernetes that is emptyDir on disk looks like any other disk from inside: it can't be told here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath

# File systems that end with the container (its writable layer) or with its memory.
_EPHEMERAL = {
    "overlay": "the container's own layer",
    "aufs": "the container's own layer",
    "tmpfs": "memory",
    "ramfs": "memory",
}
# Docker, Podman; and the variable that Kubernetes gives every pod.
_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))
_KUBERNETES = "KUBERNETES_SERVICE_HOST"


def in_container(env: Mapping[str, str]) -> bool:
    """Whether this process runs in a container, by the marks they leave."""
    return _KUBERNETES in env or any(mark.exists() for mark in _MARKS)


def file_system(path: PurePath, mounts: str) -> str:
    """The kind of file system of an absolute path; "" when it can't be told.

    mounts: the text of /proc/self/mounts: device, mount point, kind, ... per line.
    """
    found = [
        (len(point.parts), fields[2])
        for fields in (line.split(" ") for line in mounts.splitlines())
        if len(fields) > 2 and path.is_relative_to(point := PurePath(_unescaped(fields[1])))
    ]
    # Of several at one point the last was mounted over the others.
    return max(enumerate(found), key=lambda pair: (pair[1][0], pair[0]))[1][1] if found else ""


def ephemeral(kind: str) -> str:
    """Where a file system of this kind really is, if it does not last; else ""."""
    return _EPHEMERAL.get(kind, "")


def _unescaped(point: str) -> str:
    """A mount point, whose spaces and the like stand there as octal escapes: see proc(5)."""
    for code in ("040", "011", "012"):
        point = point.replace(f"\\{code}", chr(int(code, 8)))
    return point.replace("\\134", "\\")
