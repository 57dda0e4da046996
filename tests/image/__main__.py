"""Builds an image and runs it as a strict cluster would: python -m tests.image [gateway|clip] (make image-test).

The base image is made here from Debian's packages, once, and kept in the user's cache. The image runs with runc: as
user 10001, its root file system read-only, without capabilities or new privileges, in a network that is loopback alone.
A client makes an EmbedInputs call there: to `gateway`, beside which a NIM of the tests stands, or to `clip`, which
embeds with the bundled model on the CPU. What it starts, it ends.

It needs root and Debian's packages buildah, iproute2, mmdebstrap and runc, and takes a few minutes; `clip` downloads
torch with CUDA, and takes 30 GB of temporary files meanwhile.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

ROOT = Path(__file__).parents[2]
PROGRAMS = ("buildah", "ip", "mmdebstrap", "runc")
SUITE = "bookworm"
USER = 10001
PORT = 50070
START_S = 180
LAST_LINES = 40
"""Of what a failing build printed."""

BASE = "localhost/vecgate-base"
# Of the vectors of the tests' NIM.
DIMENSION = 16
EXPECTED = {
    "gateway": {
        "alive": True,
        "embedding": True,
        "whole": False,
        "model": "nvidia/nvclip",
        "shape": [3, DIMENSION],
    },
    "clip": {"alive": True, "embedding": True, "whole": False, "model": "pictogram-clip", "shape": [3, 1024]},
}
"""What the call answers, by the target of the Dockerfile."""


def say(line: str) -> None:
    """Print a line of progress."""
    sys.stderr.write(f"{line}\n")


def run(*command: str | Path, **options: Any) -> str:
    """Run a program and return what it printed."""
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, **options).stdout.strip()


class Buildah:
    """buildah with storage of its own, so that nothing of the machine's is touched."""

    def __init__(self, folder: Path) -> None:
        self._prefix = ("buildah", "--root", folder / "storage", "--runroot", folder / "run")
        self._environment = os.environ | {"BUILDAH_ISOLATION": "chroot"}

    def __call__(self, *arguments: str | Path) -> str:
        """Run a buildah command and return what it printed."""
        return run(*self._prefix, *arguments, env=self._environment)


def base_system() -> Path:
    """Return the base system as a tar file, after making it if it is not in the cache."""
    tar = user_cache_path("vecgate") / "image" / f"{SUITE}-python3.tar"
    if not tar.exists():
        say(f"making a base system of Debian {SUITE}")
        tar.parent.mkdir(parents=True, exist_ok=True)
        new = tar.with_name(f"new-{tar.name}")
        include = "--include=python3,python3-venv"
        run("mmdebstrap", "--quiet", "--variant=minbase", include, SUITE, new)
        new.replace(tar)
    return tar


def build(buildah: Buildah, folder: Path, target: str) -> str:
    """Build the base image and a target's, and return the name of that."""
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, base_system(), "/")
    buildah("commit", "--quiet", container, BASE)
    buildah("rm", container)
    # Where package registries are reached through a proxy, pip is told its certificate.
    certificate = os.environ.get("PIP_CERT", "")
    config = folder / "pip.conf"
    config.write_text(f"[global]\ncert = {certificate}\n" if certificate else "", encoding="utf-8")
    volumes = ("--volume", f"{certificate}:{certificate}:ro") if certificate else ()
    say(f"building the {target} image")
    image = f"localhost/vecgate/{target}"
    secret = f"id=pip_conf,src={config}"
    base = f"BASE_IMAGE={BASE}"
    options = ("--network", "host", "--secret", secret, *volumes, "--build-arg", base, "--format", "docker")
    try:
        buildah("build", *options, "--target", target, "--tag", image, ROOT)
    except subprocess.CalledProcessError as error:
        say("\n".join(error.stdout.splitlines()[-LAST_LINES:]))
        raise
    return image


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


def bundle(folder: Path, root: str, network: str, configuration: dict[str, Any], nim: str) -> None:
    """Write what runc needs to run the image as strictly as Pod Security "restricted" does, and stricter."""
    image = configuration["OCIv1"]["config"]
    ours = {"VECGATE_NIM__BASE_URL": nim, "VECGATE_NIM__DIMENSION": DIMENSION, "VECGATE_LOG__FORMAT": "json"}
    ours |= {"VECGATE_SERVER__ALLOW_PLAINTEXT": "true", "VECGATE_WEB__ALLOW_PLAINTEXT": "true"}
    environment = [*image["Env"], *(f"{name}={value}" for name, value in ours.items())]
    uid, _, gid = image["User"].partition(":")
    kinds = ("bounding", "effective", "permitted", "inheritable", "ambient")
    document = {
        "ociVersion": "1.0.2",
        "root": {"path": root, "readonly": True},
        "process": {
            "user": {"uid": int(uid), "gid": int(gid)},
            "args": [*image["Entrypoint"], *image["Cmd"]],
            "env": environment,
            "cwd": image["WorkingDir"],
            "noNewPrivileges": True,
            "capabilities": {kind: [] for kind in kinds},
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]},
        ],
        "linux": {
            "namespaces": [
                *({"type": each} for each in ("pid", "ipc", "uts", "mount")),
                {"type": "network", "path": f"/run/netns/{network}"},
            ],
        },
    }
    (folder / "config.json").write_text(json.dumps(document), encoding="utf-8")


@contextmanager
def started(command: Sequence[str | Path], **options: Any) -> Iterator["subprocess.Popen[str]"]:
    """Run a program beside; it is ended at the end if it has not ended by itself."""
    with subprocess.Popen(command, text=True, **options) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()


def peer(network: str, *arguments: str) -> list[str]:
    """Return the command of a peer inside the network."""
    return ["ip", "netns", "exec", network, sys.executable, "-m", "tests.image.peer", *arguments]


def wait_for_answer(network: str, process: "subprocess.Popen[str]") -> dict[str, Any]:
    """Return what the call to the container answers, as soon as it does."""
    end = time.monotonic() + START_S
    while True:
        done = subprocess.run(
            peer(network, "call", f"127.0.0.1:{PORT}"), cwd=ROOT, check=False, capture_output=True, text=True
        )
        if done.returncode == 0:
            return dict(json.loads(done.stdout))
        if process.poll() is not None or time.monotonic() > end:
            raise AssertionError(f"no answer from the container: {done.stderr[-2000:]}")
        time.sleep(0.5)


def check_confinement(pid: int) -> str:
    """Assert that the container's process is as confined as it should be; return its peak memory."""
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
    assert "ro" in root.split(","), root
    devices = [line.split(":")[0].strip() for line in Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]]
    assert devices == ["lo"], devices
    return " ".join(status["VmHWM"])


def main(arguments: Sequence[str]) -> int:
    """Build, run, call, end; 0 if all of it is as it should be."""
    target = arguments[0] if arguments else "gateway"
    if target not in EXPECTED or len(arguments) > 1:
        say(f"name one target: {' or '.join(EXPECTED)}")
        return 2
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing or os.geteuid() != 0:
        say(f"needs root, and these programs, of which are missing: {', '.join(missing) or 'none'}")
        return 2
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="vecgate-image-")))
        buildah = Buildah(folder)
        image = build(buildah, folder, target)
        container = buildah("from", image)
        ends.callback(buildah, "rm", container)
        root = buildah("mount", container)
        configuration = json.loads(buildah("inspect", "--type", "image", image))
        network = ends.enter_context(loopback_network())
        nim = ends.enter_context(started(peer(network, "nim"), stdout=subprocess.PIPE, cwd=ROOT))
        assert nim.stdout is not None
        bundle(folder, root, network, configuration, nim.stdout.readline().strip())
        say("running it")
        runc = ("runc", "--root", folder / "runc")
        name = f"vecgate-{os.getpid()}"
        server = ends.enter_context(started([*runc, "run", "--bundle", folder, name], stderr=subprocess.PIPE))
        answer = wait_for_answer(network, server)
        assert answer == EXPECTED[target], answer
        memory = check_confinement(json.loads(run(*runc, "state", name))["pid"])
        run(*runc, "kill", name, "TERM")
        _, log = server.communicate(timeout=60)
        assert server.returncode == 0, log
        size = sum(file.stat().st_size for file in Path(root).rglob("*") if file.is_file() and not file.is_symlink())
        say(f"passed: {size / 1e6:.0f} MB unpacked, peak memory {memory}, answer {answer}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
