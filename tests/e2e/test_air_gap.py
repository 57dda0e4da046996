"""Behind an air gap: a network of loopback alone, no keys, an empty home, and every address that was tried."""

import ipaddress
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.store.embedded.binary import find_binary

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")

ROOT = Path(__file__).parents[2]
# connect, and what sends without it: a datagram to a name server, for example.
CALLS = "connect,sendto,sendmsg,sendmmsg"
ADDRESS = re.compile(r'sin_addr=inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"')
DNS = "htons(53)"


def enclosed(command: list[str], trace: Path) -> list[str]:
    """Return a command that runs another in a network of loopback alone, every address that it tries in a file."""
    missing = [program for program in ("unshare", "ip", "strace") if shutil.which(program) is None]
    assert missing == [], f"the air gap needs these programs: {missing}"
    as_root = ["--map-root-user"] if os.geteuid() != 0 else []
    traced = ["strace", "--follow-forks", "--seccomp-bpf", "-qq", "--trace", CALLS, "--output", str(trace)]
    inner = 'ip link set lo up && exec "$@"'
    return ["unshare", *as_root, "--net", "sh", "-c", inner, "enclosed", *traced, *command]


def addresses(trace: Path) -> Iterator[tuple[str, str]]:
    """Yield every address of the internet in a trace, with its line."""
    for line in trace.read_text(encoding="utf-8", errors="replace").splitlines():
        for match in ADDRESS.finditer(line):
            yield match[1] or match[2], line


def strangers(trace: Path) -> list[str]:
    """Return the lines of a trace that name an address other than loopback's, or a name server anywhere."""
    return [line for address, line in addresses(trace) if DNS in line or not is_loopback(address)]


def is_loopback(text: str) -> bool:
    address = ipaddress.ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def test_serving_importing_and_searching_try_nothing_but_loopback(tmp_path: Path, weaviate_binary: None) -> None:
    trace, home = tmp_path / "trace", tmp_path / "home"
    home.mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'protos'}",
    }
    command = [sys.executable, "-m", "tests.e2e.air_gap", str(tmp_path / "data"), str(find_binary())]

    done = subprocess.run(
        enclosed(command, trace), env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240
    )

    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout) == {"failed": [], "first": ["bicycle"], "code": 0}
    assert strangers(trace) == []
    assert len(list(addresses(trace))) > 10, "the trace holds what was tried on loopback"
    assert list(home.rglob("*.json")) == [], "nothing was fetched into the home folder"


BEYOND = {
    "a connection": "socket.create_connection(('192.0.2.1', 443), 1)",
    "a datagram": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('192.0.2.1', 9))",
    "a name lookup": "socket.getaddrinfo('example.com', 443)",
}


@pytest.mark.parametrize("code", BEYOND.values(), ids=BEYOND)
def test_the_witness_sees_what_is_tried_beyond_loopback(tmp_path: Path, code: str) -> None:
    trace = tmp_path / "trace"
    program = f"import contextlib, socket\nwith contextlib.suppress(OSError): {code}"

    subprocess.run(enclosed([sys.executable, "-c", program], trace), check=True, timeout=60)

    assert strangers(trace) != []
