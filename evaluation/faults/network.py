import os
import shutil
import subprocess
from types import TracebackType
from typing import Self


def why_no_link() -> str | None:
    """Why no link can be made and cut here; None: it can."""
    if shutil.which("ip") is None:
        return "a link is made with the program ip, which is not installed"
    if os.geteuid() != 0:
        return "network namespaces need root"
    done = subprocess.run(["ip", "netns", "add", _name("probe")], capture_output=True, text=True, timeout=10)
    if done.returncode != 0:
        return f"ip netns add: {done.stderr.strip()}"
    _ip("netns", "del", _name("probe"))
    return None


class Link:
    """A network namespace, joined to this one by a pair of interfaces that can be taken down. Needs root."""

    def __init__(self) -> None:
        self.namespace = _name("ns")
        self.here, self.there = _name("a"), _name("b")
        self._subnet = f"10.213.{os.getpid() % 256}"
        self.address, self._far_address = f"{self._subnet}.1", f"{self._subnet}.2"

    def __enter__(self) -> Self:
        _ip("netns", "add", self.namespace)
        try:
            _ip("link", "add", self.here, "type", "veth", "peer", "name", self.there, "netns", self.namespace)
            _ip("addr", "add", f"{self.address}/24", "dev", self.here)
            _ip("link", "set", self.here, "up")
            inside = ("-n", self.namespace)
            _ip(*inside, "addr", "add", f"{self._far_address}/24", "dev", self.there)
            _ip(*inside, "link", "set", self.there, "up")
            _ip(*inside, "link", "set", "lo", "up")
            # What Linux uses by default; this kernel's own choice may be one that keeps probing for bandwidth.
            route = ("route", "replace", f"{self._subnet}.0/24", "proto", "kernel", "scope", "link")
            _ip(*route, "dev", self.here, "src", self.address, "congctl", "cubic")
            _ip(*inside, *route, "dev", self.there, "src", self._far_address, "congctl", "cubic")
        except BaseException:
            _ip("netns", "del", self.namespace)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A namespace lives on while its dead processes' connections wait for answers, and its interfaces with it.
        _ip("link", "del", self.here)
        _ip("netns", "del", self.namespace)

    def limit(self, megabits: float) -> None:
        """Lets through no more than so many megabits a second, in each direction."""
        shape = ("root", "tbf", "rate", f"{megabits}mbit", "burst", "64kb", "latency", "20ms")
        _tc("qdisc", "replace", "dev", self.here, *shape)
        _tc("-n", self.namespace, "qdisc", "replace", "dev", self.there, *shape)

    def cut(self) -> None:
        """Takes the far end down: nothing arrives any more, and neither side is told."""
        _ip("-n", self.namespace, "link", "set", self.there, "down")


def _name(part: str) -> str:
    return f"plx-{part}-{os.getpid() % 10**6}"


def _tc(*arguments: str) -> None:
    subprocess.run(["tc", *arguments], check=True, capture_output=True, timeout=10)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=10)
