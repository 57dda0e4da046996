"""Runs containers of an image with runc, as strictly as Pod Security "restricted" does, and stricter."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.image.building import ROOT, run

USER = 10001
WAIT_S = 600
END_S = 1800
SHARED_MEMORY = "64m"
"""What engines give a container that does not ask for more."""
SECCOMP = Path("/usr/share/containers/seccomp.json")
"""What engines let a container call; of the packages that come with buildah."""
ARCHITECTURE = "amd64"

Process = subprocess.Popen[str]


@contextmanager
def loopback_network() -> Iterator[str]:
    """Yield the name of a network namespace in which there is loopback and nothing else."""
    name = f"vecgate-{os.getpid()}"
    run("ip", "netns", "add", name)
    try:
        run("ip", "-netns", name, "link", "set", "lo", "up")
        yield name
    finally:
        run("ip", "netns", "delete", name)


@contextmanager
def started(command: Sequence[str | Path], **options: Any) -> Iterator[Process]:
    """Run a program beside; it is ended at the end if it has not ended by itself."""
    with subprocess.Popen(command, text=True, **options) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()


def peer(network: str, *arguments: str | Path) -> list[str]:
    """Return the command of a peer inside the network."""
    return ["ip", "netns", "exec", network, sys.executable, "-m", "tests.image.peer", *map(str, arguments)]


@contextmanager
def serving_peer(network: str, *arguments: str | Path) -> Iterator[dict[str, str]]:
    """Run a peer beside, and yield the environment variables by which containers find it."""
    with started(peer(network, *arguments), stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())


def answer_of(network: str, process: Process, *arguments: str) -> dict[str, Any]:
    """Return what a peer that asks a container is told, as soon as it is, unless its process ends before."""
    end = time.monotonic() + WAIT_S
    while True:
        done = subprocess.run(peer(network, *arguments), cwd=ROOT, check=False, capture_output=True, text=True)
        if done.returncode == 0:
            return dict(json.loads(done.stdout))
        if process.poll() is not None or time.monotonic() > end:
            raise AssertionError(f"no answer from the container: {done.stderr[-2000:]}")
        time.sleep(0.5)


def system_calls() -> dict[str, Any]:
    """Return the filter of system calls that engines use by default, for a process without capabilities."""
    profile = json.loads(SECCOMP.read_text(encoding="utf-8"))
    rules = []
    for rule in profile["syscalls"]:
        needs = rule.get("includes") or {}
        if not needs.get("caps") and ARCHITECTURE in needs.get("arches", [ARCHITECTURE]):
            names = ("names", "action", "args", "errnoRet")
            rules.append({name: rule[name] for name in names if rule.get(name) is not None})
    return {
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": rules,
    }


@dataclass(frozen=True, slots=True)
class Containers:
    """Where containers of one image run.

    Attributes:
        folder: for what runc needs.
        root: the image's file system, which all of them share: they cannot write to it.
        network: the name of their network namespace.
        image: the image's configuration.
    """

    folder: Path
    root: Path
    network: str
    image: Mapping[str, Any]

    @contextmanager
    def started(
        self,
        name: str,
        arguments: Sequence[str],
        variables: Mapping[str, str],
        volumes: Mapping[str, Path] | None = None,
        shared_memory: str = SHARED_MEMORY,
    ) -> Iterator[Process]:
        """Run a container beside; it is ended at the end. What it prints goes to `log(name)`.

        Args:
            name: of the container.
            arguments: what to run.
            variables: of the environment, beside the image's own.
            volumes: folders of this machine that it can write to, by their paths in the container; /tmp is in memory
                if it is not among them.
            shared_memory: the size of /dev/shm.
        """
        bundle = self.folder / name
        bundle.mkdir()
        (bundle / "hosts").write_text(f"127.0.0.1 localhost {name}\n", encoding="utf-8")
        document = {"hostname": name, **self._document(arguments, variables, volumes or {}, shared_memory)}
        document["mounts"].append(_bound("/etc/hosts", bundle / "hosts", "ro"))
        (bundle / "config.json").write_text(json.dumps(document), encoding="utf-8")
        with self._log(name).open("w", encoding="utf-8") as log:
            command = self._runc("run", "--bundle", bundle, self._id(name))
            with started(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as process:
                try:
                    yield process
                finally:
                    # A program that is the first one of its container may not heed a friendlier signal.
                    subprocess.run(self._runc("delete", "--force", self._id(name)), check=False, capture_output=True)

    def finished(self, name: str, arguments: Sequence[str], variables: Mapping[str, str], **more: Any) -> str:
        """Run a container to its end, which has to be a good one, and return what it printed."""
        with self.started(name, arguments, variables, **more) as process:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=END_S)
            ended = process.returncode
        said = self.log(name)
        assert ended == 0, f"{name}: {ended}: {said[-4000:]}"
        return said

    def inside(self, name: str, *command: str) -> str:
        """Run a program in a container that runs, and return what it printed."""
        return run(*self._runc("exec", self._id(name), *command))

    def end(self, name: str) -> None:
        """Ask a container to end."""
        run(*self._runc("kill", self._id(name), "TERM"))

    def log(self, name: str) -> str:
        """Return what a container has printed."""
        return self._log(name).read_text(encoding="utf-8")

    def check_confinement(self, name: str) -> str:
        """Assert that a container's first process is as confined as it should be; return its peak memory."""
        pid = json.loads(run(*self._runc("state", self._id(name))))["pid"]
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
        mounts = Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8").splitlines()
        (root,) = (each.split()[5] for each in mounts if each.split()[4] == "/")
        assert status["Uid"] == [str(USER)] * 4, status["Uid"]
        assert status["Gid"] == [str(USER)] * 4, status["Gid"]
        assert {name: int(status[name][0], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {
            "CapPrm": 0,
            "CapEff": 0,
            "CapBnd": 0,
        }
        assert status["NoNewPrivs"] == ["1"]
        # Filtered (proc(5)).
        assert status["Seccomp"] == ["2"]
        assert "ro" in root.split(","), root
        devices = [line.split(":")[0].strip() for line in Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]]
        assert devices == ["lo"], devices
        return " ".join(status["VmHWM"])

    def _document(
        self, arguments: Sequence[str], variables: Mapping[str, str], volumes: Mapping[str, Path], shared_memory: str
    ) -> dict[str, Any]:
        uid, _, gid = self.image["User"].partition(":")
        kinds = ("bounding", "effective", "permitted", "inheritable", "ambient")
        memory = {
            "/tmp": ["nodev", "mode=1777"],
            "/dev": ["mode=755"],
            "/dev/shm": ["nodev", "mode=1777", f"size={shared_memory}"],
        }
        return {
            "ociVersion": "1.0.2",
            "root": {"path": str(self.root), "readonly": True},
            "process": {
                "user": {"uid": int(uid), "gid": int(gid)},
                "args": list(arguments),
                "env": [*self.image["Env"], *(f"{name}={value}" for name, value in variables.items())],
                "cwd": self.image["WorkingDir"],
                "noNewPrivileges": True,
                "capabilities": {kind: [] for kind in kinds},
            },
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                *(
                    {"destination": path, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", *options]}
                    for path, options in memory.items()
                    if path not in volumes
                ),
                *(_bound(path, folder, "rw") for path, folder in volumes.items()),
            ],
            "linux": {
                "namespaces": [
                    *({"type": each} for each in ("pid", "ipc", "uts", "mount")),
                    {"type": "network", "path": f"/run/netns/{self.network}"},
                ],
                "seccomp": system_calls(),
            },
        }

    def _runc(self, *arguments: str | Path) -> tuple[str | Path, ...]:
        return ("runc", "--root", self.folder / "runc", *arguments)

    def _id(self, name: str) -> str:
        return f"vecgate-{os.getpid()}-{name}"

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"


def _bound(path: str, source: Path, access: str) -> dict[str, Any]:
    options = ["bind", "nosuid", "nodev", access]
    return {"destination": path, "type": "bind", "source": str(source), "options": options}
