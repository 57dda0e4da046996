"""Builds an image and runs it as a strict cluster would: python -m tests.image [gateway|clip|bulk] (make image-test).

The base image is made here from Debian's packages, once, and kept in the user's cache. The image is built as a release
is, its base named by digest; the gateway is built twice, and both builds must have the same layers. It is pushed and
pulled back, and runs with runc: as user 10001, its root file system read-only, without capabilities or new privileges,
in a network that is loopback alone. Nothing may be compiled as it starts.
A client makes an EmbedInputs call there: to `gateway`, beside which a NIM of the tests stands, or to `clip`, which
embeds with the bundled model on the CPU. What it starts, it ends.

It needs root and Debian's packages buildah, iproute2, mmdebstrap and runc, and takes a few minutes; `clip` downloads
torch with CUDA, and takes 30 GB of temporary files meanwhile.
"""

import hashlib
import json
import os
import re
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
LEAST_MODULES = 500
UNCHECKED = (1).to_bytes(4, "little")
"""Flags of a compiled file that Python takes as it is (PEP 552)."""
LAST_LINES = 40
"""Of what a failing build printed."""

BASE = "localhost/vecgate-base"
REVISION = "0" * 40
EPOCH = 1_767_225_600
CREATED = "2026-01-01T00:00:00Z"
"""The same moment."""
# Of the vectors of the tests' NIM.
DIMENSION = 16
LOCAL = {"alive": True, "embedding": True, "whole": False, "model": "pictogram-clip", "shape": [3, 1024]}
EXPECTED = {
    "gateway": {
        "alive": True,
        "embedding": True,
        "whole": False,
        "model": "nvidia/nvclip",
        "shape": [3, DIMENSION],
    },
    "clip": LOCAL,
    "bulk": LOCAL,
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


def make_base(buildah: Buildah) -> str:
    """Make the base image and return its reference, by digest."""
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, base_system(), "/")
    buildah("commit", "--quiet", container, BASE)
    buildah("rm", container)
    return f"{BASE}@{inspect(buildah, BASE)['FromImageDigest']}"


def build(buildah: Buildah, folder: Path, target: str, base: str) -> str:
    """Build a target's image as a release and return its name."""
    # Where package registries are reached through a proxy, pip is told its certificate.
    certificate = os.environ.get("PIP_CERT", "")
    config = folder / "pip.conf"
    config.write_text(f"[global]\ncert = {certificate}\n" if certificate else "", encoding="utf-8")
    volumes = ("--volume", f"{certificate}:{certificate}:ro") if certificate else ()
    say(f"building the {target} image")
    image = f"localhost/vecgate/{target}"
    arguments = {"BASE_IMAGE": base, "REVISION": REVISION, "CREATED": CREATED}
    options = ("--network", "host", "--secret", f"id=pip_conf,src={config}", *volumes, "--timestamp", str(EPOCH))
    given = (each for name, value in arguments.items() for each in ("--build-arg", f"{name}={value}"))
    try:
        buildah("build", *options, *given, "--format", "docker", "--target", target, "--tag", image, ROOT)
    except subprocess.CalledProcessError as error:
        say("\n".join(error.stdout.splitlines()[-LAST_LINES:]))
        raise
    return image


def inspect(buildah: Buildah, image: str) -> dict[str, Any]:
    """Return what buildah says of an image."""
    return dict(json.loads(buildah("inspect", "--type", "image", image)))


def check_again(buildah: Buildah, folder: Path, target: str, base: str, image: str) -> None:
    """Build an image again and assert that all of its layers are the same to the byte."""
    first, before = layers(buildah, image), contents(buildah, image)
    build(buildah, folder, target, base)
    second, after = layers(buildah, image), contents(buildah, image)
    changed = [path for path in sorted(before.keys() | after.keys()) if before.get(path) != after.get(path)]
    assert changed == [], changed
    assert first == second


def layers(buildah: Buildah, image: str) -> list[str]:
    """Return the digests of an image's layers; what is around them has a random name of the builder's in it."""
    return list(inspect(buildah, image)["OCIv1"]["rootfs"]["diff_ids"])


def contents(buildah: Buildah, image: str) -> dict[Path, str]:
    """Return the digest of every file of an image by its path."""
    container = buildah("from", image)
    root = Path(buildah("mount", container))
    digests = {
        file.relative_to(root): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in root.rglob("*")
        if file.is_file() and not file.is_symlink()
    }
    buildah("rm", container)
    return digests


def pushed_and_pulled(buildah: Buildah, folder: Path, image: str) -> str:
    """Push an image, remove it, pull it back, and return the name that it then has."""
    kept = f"oci:{folder / 'pushed'}:{image.rpartition('/')[2]}"
    buildah("push", "--quiet", image, kept)
    buildah("rmi", "--force", image)
    return buildah("pull", "--quiet", kept)


def check_labels(configuration: dict[str, Any], base: str) -> None:
    """Assert that an image says what it is."""
    labels = {
        name.removeprefix("org.opencontainers.image."): text
        for name, text in configuration["OCIv1"]["config"]["Labels"].items()
    }
    expected = {"revision": REVISION, "created": CREATED, "base.name": base, "licenses": "Apache-2.0"}
    assert {name: labels.get(name) for name in expected} == expected, labels
    assert {"title", "version", "description"} <= labels.keys(), labels


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


def bundle(folder: Path, root: str, network: str, configuration: dict[str, Any], embedder: dict[str, str]) -> None:
    """Write what runc needs to run the image as strictly as Pod Security "restricted" does, and stricter."""
    image = configuration["OCIv1"]["config"]
    ours = {"VECGATE_LOG__FORMAT": "json", "VECGATE_SERVER__ALLOW_PLAINTEXT": "true"} | embedder
    # Python then names the file that each module comes from.
    ours |= {"PYTHONVERBOSE": 1}
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


def check_compiled(root: Path) -> int:
    """Assert that no compiled file is checked by the time of its source; return how many files there are."""
    files = list((root / "opt" / "vecgate").rglob("*.pyc"))
    checked = [file for file in files if file.read_bytes()[4:8] != UNCHECKED]
    assert files
    assert checked == []
    return len(files)


def check_start(log: str) -> int:
    """Assert that no module was compiled as the server started; return how many modules it loaded."""
    files = re.findall(r"^# code object from '?(.*?)'?$", log, re.MULTILINE)
    compiled = [file for file in files if not file.endswith(".pyc")]
    assert compiled == [], compiled
    assert len(files) > LEAST_MODULES, log[-2000:]
    return len(files)


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
        base = make_base(buildah)
        image = build(buildah, folder, target, base)
        if target == "gateway":
            # The other one would take another 30 GB.
            check_again(buildah, folder, target, base, image)
        image = pushed_and_pulled(buildah, folder, image)
        container = buildah("from", image)
        ends.callback(buildah, "rm", container)
        root = buildah("mount", container)
        configuration = inspect(buildah, image)
        check_labels(configuration, base)
        files = check_compiled(Path(root))
        network = ends.enter_context(loopback_network())
        nim = ends.enter_context(started(peer(network, "nim"), stdout=subprocess.PIPE, cwd=ROOT))
        assert nim.stdout is not None
        address = nim.stdout.readline().strip()
        # With nothing set, the other image runs the bundled model.
        embedder = {"KIND": "nim", "BASE_URL": address} if target == "gateway" else {}
        variables = {f"VECGATE_EMBEDDERS__NIM__{name}": value for name, value in embedder.items()}
        bundle(folder, root, network, configuration, variables)
        say("running it")
        runc = ("runc", "--root", folder / "runc")
        name = f"vecgate-{os.getpid()}"
        log = ends.enter_context((folder / "log").open("w+", encoding="utf-8"))
        server = ends.enter_context(started([*runc, "run", "--bundle", folder, name], stderr=log))
        answer = wait_for_answer(network, server)
        assert answer == EXPECTED[target], answer
        memory = check_confinement(json.loads(run(*runc, "state", name))["pid"])
        run(*runc, "kill", name, "TERM")
        server.wait(timeout=60)
        said = (folder / "log").read_text(encoding="utf-8")
        assert server.returncode == 0, said[-2000:]
        modules = check_start(said)
        size = sum(file.stat().st_size for file in Path(root).rglob("*") if file.is_file() and not file.is_symlink())
        say(f"passed: {size / 1e6:.0f} MB unpacked, {files} compiled files and none checked by time")
        say(f"{modules} modules loaded and none compiled, peak memory {memory}, answer {answer}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
