"""Builds an image and runs it as a strict cluster would: python -m tests.image [gateway|clip|bulk] (make image-test).

The base image is made here from Debian's packages, once, and kept in the user's cache. The image is built as a release
is, its base named by digest; the gateway is built twice, and both builds must have the same layers. It is pushed and
pulled back, and runs with runc: as user 10001, its root file system read-only, without capabilities or new privileges,
with the system calls that container engines allow, in a network that is loopback alone. Nothing may be compiled as it
starts.
A client makes an EmbedInputs call there: to `gateway`, beside which a NIM of the tests stands, or to `clip` and `bulk`,
which embed with the bundled model on the CPU. In `bulk`, bulk jobs run too: one by itself, and one on a Ray cluster as
the chart's example has it, both beside a real Weaviate and an S3 server. What it starts, it ends.

It needs root and Debian's packages buildah, iproute2, mmdebstrap and runc, and takes a few minutes; `clip` and `bulk`
download torch with CUDA, and take 30 GB of temporary files meanwhile.
"""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.image.building import (
    Buildah,
    build,
    check_again,
    check_compiled,
    check_labels,
    check_programs,
    inspect,
    make_base,
    pushed_and_pulled,
    say,
    size_of,
)
from tests.image.bulk_jobs import check_alone, check_on_a_cluster
from tests.image.containers import Containers, answer_of, loopback_network, serving_peer

PROGRAMS = ("buildah", "ip", "mmdebstrap", "runc")
TARGETS = ("gateway", "clip", "bulk")
ADDRESS = "127.0.0.1:50070"
LEAST_MODULES = 500
NIM = {"alive": True, "embedding": True, "whole": False, "model": "nvidia/nvclip", "shape": [3, 16]}
LOCAL = {"alive": True, "embedding": True, "whole": False, "model": "pictogram-clip", "shape": [3, 1024]}


def check_start(log: str) -> int:
    """Assert that no module was compiled as the server started; return how many modules it loaded."""
    files = re.findall(r"^# code object from '?(.*?)'?$", log, re.MULTILINE)
    compiled = [file for file in files if not file.endswith(".pyc")]
    assert compiled == [], compiled
    assert len(files) > LEAST_MODULES, log[-2000:]
    return len(files)


def check_serving(containers: Containers, target: str) -> str:
    """Assert that the image serves, and ends as it should; return what it took in words."""
    with ExitStack() as ends:
        # With nothing set, the other images run the bundled model.
        found = ends.enter_context(serving_peer(containers.network, "nim")) if target == "gateway" else {}
        variables = {
            "VECGATE_LOG__FORMAT": "json",
            "VECGATE_SERVER__ALLOW_PLAINTEXT": "true",
            # Python then names the file that each module comes from.
            "PYTHONVERBOSE": "1",
            **found,
        }
        command = [*containers.image["Entrypoint"], *containers.image["Cmd"]]
        server = ends.enter_context(containers.started("serve", command, variables))
        answer = answer_of(containers.network, server, "call", ADDRESS)
        assert answer == (NIM if target == "gateway" else LOCAL), answer
        memory = containers.check_confinement("serve")
        containers.end("serve")
        server.wait(timeout=60)
        said = containers.log("serve")
        assert server.returncode == 0, said[-2000:]
    return f"{check_start(said)} modules loaded and none compiled, peak memory {memory}, answer {answer}"


def main(arguments: Sequence[str]) -> int:
    """Build, run, call, end; 0 if all of it is as it should be."""
    target = arguments[0] if arguments else "gateway"
    if target not in TARGETS or len(arguments) > 1:
        say(f"name one target: {' or '.join(TARGETS)}")
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
            # The other ones would take another 30 GB.
            check_again(buildah, folder, target, base, image)
        image = pushed_and_pulled(buildah, folder, image)
        container = buildah("from", image)
        ends.callback(buildah, "rm", container)
        root = Path(buildah("mount", container))
        configuration = inspect(buildah, image)
        check_labels(configuration, base)
        check_programs(root)
        files = check_compiled(root)
        network = ends.enter_context(loopback_network())
        containers = Containers(folder, root, network, configuration["OCIv1"]["config"])
        say("running it")
        told = [check_serving(containers, target)]
        if target == "bulk":
            found = ends.enter_context(serving_peer(network, "stores", folder / "weaviate"))
            told += [check_alone(containers, found), check_on_a_cluster(containers, found)]
        say(f"passed: {size_of(root) / 1e6:.0f} MB unpacked, {files} compiled files and none checked by time")
        for each in told:
            say(each)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
