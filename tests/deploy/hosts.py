"""Computers to try `ray up` on: network namespaces of this one, each with what a computer has.

An address on a switch of their own, a home, a temporary folder, processes and an SSH server. It
needs root, iproute2 and openssh-server; everything ends with `close`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

SSHD = "/usr/sbin/sshd"
NETWORK = f"10.213.{os.getpid() % 250}"  # runs side by side have their own
SWITCH = f"mrkd{os.getpid()}"
PATIENCE = 30.0  # s until an SSH server answers

HOME = "/tmp/home"  # on a host

HOST = """
set -e
mount --make-rprivate /
mkdir -p /run/sshd
for folder in $2; do
  case $folder in /tmp/*) mkdir -p "$1$folder"; mount --bind "$folder" "$1$folder";; esac
done
mount --bind "$1/passwd" /etc/passwd
mount -t tmpfs -o size=2g tmpfs /dev/shm
mount --rbind "$1/tmp" /tmp
exec /usr/sbin/sshd -D -e -f /tmp/home/sshd_config
"""
PASSWD = f"root:x:0:0:root:{HOME}:/bin/bash\nsshd:x:101:65534::/run/sshd:/usr/sbin/nologin\n"
CONFIG = """
ListenAddress {address}
HostKey {home}/host_key
AuthorizedKeysFile {home}/.ssh/authorized_keys
PermitRootLogin yes
StrictModes no
UsePAM no
PidFile none
"""


def lacking() -> str:
    """Return why there can be no hosts here; "" where there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need root on Linux"
    for program in (SSHD, "ip", "ssh", "ssh-keygen", "rsync", "unshare"):
        if not shutil.which(program):
            return f"{program} is not installed"
    if _run("ip", "link", "add", SWITCH, "type", "bridge", check=False):
        return "this machine makes no network devices"
    _run("ip", "link", "del", SWITCH)
    return ""


def _run(*command: str, check: bool = True) -> int:
    return subprocess.run(command, check=check, capture_output=True).returncode


@dataclass(frozen=True)
class Host:
    """One of them; `home` is its home as this computer sees it."""

    address: str
    home: Path
    process: subprocess.Popen[bytes]

    def processes(self) -> list[str]:
        """Return the command lines of all that runs there, but for its SSH server."""
        first, *others = psutil.Process(self.process.pid).children(recursive=True)
        assert first.name() == "sshd"
        found = []
        for process in others:
            with suppress(psutil.NoSuchProcess):
                found.append(" ".join(process.cmdline()) or process.name())
        return sorted(found)

    def shared_memory(self) -> list[str]:
        """Return the names of the files in its /dev/shm."""
        (first, *_) = psutil.Process(self.process.pid).children()
        return sorted(os.listdir(f"/proc/{first.pid}/root/dev/shm"))

    def temporary(self) -> dict[str, int]:
        """Return the bytes of what is in its /tmp besides its home, by name."""
        found = {}
        for place in self.home.parent.iterdir():
            files = [path for path in (place, *place.rglob("*")) if path.is_file()]
            if files and place != self.home:
                found[place.name] = sum(path.stat().st_size for path in files)
        return found


@dataclass(frozen=True)
class Hosts:
    """All of them, the environment that they share, and the key that opens them."""

    hosts: tuple[Host, ...]
    key: Path


@contextmanager
def hosts(count: int, key: Path) -> Iterator[Hosts]:
    """Start so many hosts, that are reached with a key which is made here."""
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mrkd-hosts")))
        _run("ip", "link", "add", SWITCH, "type", "bridge")
        stack.callback(_run, "ip", "link", "del", SWITCH, check=False)
        _run("ip", "address", "add", f"{NETWORK}.254/24", "dev", SWITCH)
        _run("ip", "link", "set", SWITCH, "up")
        started = tuple(
            stack.enter_context(_host(root / str(i), i, key)) for i in range(1, count + 1)
        )
        for host in started:
            _answered(host)
        yield Hosts(started, key)


@contextmanager
def _host(folder: Path, number: int, key: Path) -> Iterator[Host]:
    address, name = f"{NETWORK}.{number}", f"{SWITCH}-{number}"
    home = folder / HOME.lstrip("/")
    (home / ".ssh").mkdir(parents=True)
    (folder / "passwd").write_text(PASSWD)
    public = key.with_name(f"{key.name}.pub").read_text()
    (home / ".ssh" / "authorized_keys").write_text(public)
    (home / "sshd_config").write_text(CONFIG.format(address=address, home=HOME))
    (home / ".bashrc").write_text("export PYTHONPATH=$HOME/mrkd_ray\n")
    (home / "venv").symlink_to(sys.prefix)
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / "host_key"))
    _run("ip", "netns", "add", name)
    try:
        _run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        _run("ip", "link", "set", name, "master", SWITCH, "up")
        for words in (
            ("address", "add", f"{address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("link", "set", "lo", "up"),
            ("route", "add", "default", "via", f"{NETWORK}.254"),  # Ray finds its address by it
        ):
            _run("ip", "-n", name, *words)
        own = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts")
        shown = f"{sys.prefix} {sys.base_prefix}"  # what of /tmp a host sees
        script = ("bash", "-c", HOST, "host", str(folder), shown)
        with (folder / "sshd.log").open("wb") as log:
            process = subprocess.Popen(["ip", "netns", "exec", name, *own, *script], stderr=log)
        try:
            yield Host(address, home, process)
        finally:
            process.kill()  # and all that runs there: its first process ends with it
            process.wait()
    finally:
        _run("ip", "link", "del", name, check=False)
        _run("ip", "netns", "del", name, check=False)


def _answered(host: Host) -> None:
    """Wait until a host's SSH server answers."""
    deadline = time.monotonic() + PATIENCE
    while _run("ssh-keyscan", "-T", "2", host.address, check=False) or host.process.poll():
        if time.monotonic() > deadline or host.process.poll() is not None:
            log = (host.home.parents[1] / "sshd.log").read_text()
            raise RuntimeError(f"{host.address} does not answer: {log}")
        time.sleep(0.1)
