"""The browser for the tests of the explorer: python -m tests.explorer.chromium finds it, or installs Debian's."""

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, async_playwright

VARIABLE = "CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PACKAGES = ("chromium", "fonts-liberation")
"""Debian's packages: without a font, a page has no text to look at."""

NOWHERE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
"""No request leaves this machine, whatever a page or the browser itself tries."""

CAMERA = "--use-fake-device-for-media-stream"
"""A camera that every machine has."""


class ChromiumMissing(Exception):
    """There is no Chromium; the message says how to get one."""


def find_chromium() -> str:
    """Return the program of a Chromium: the one that the variable names, else the first on PATH.

    Raises:
        ChromiumMissing: there is none; the message says how to get one.
    """
    named = os.environ.get(VARIABLE)
    if named:
        program = shutil.which(named)
        if program is None:
            raise ChromiumMissing(f"{VARIABLE} names {named}, which is not a program")
        return program
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        raise ChromiumMissing(
            "there is no Chromium, which the tests of the explorer drive: install Chromium or Chrome (on Debian as "
            f"root: apt-get install {' '.join(PACKAGES)}), or set {VARIABLE} to its program; "
            "`make test PYTEST_ARGS=\"-m 'not browser'\"` runs the other tests"
        )
    return found


def install_chromium() -> str:
    """Return the program of a Chromium, after installing Debian's package if there is none and this is root.

    Raises:
        ChromiumMissing: there is none, and it cannot be installed; the message says how to get one.
    """
    try:
        return find_chromium()
    except ChromiumMissing as missing:
        apt = shutil.which("apt-get")
        if os.environ.get(VARIABLE) or apt is None or os.geteuid() != 0:
            raise
        sys.stderr.write("installing Debian's Chromium for the tests of the explorer\n")
        command = (apt, "--yes", "--quiet", "--option", "DPkg::Lock::Timeout=300")
        for step in (("update",), ("install", "--no-install-recommends", *PACKAGES)):
            done = subprocess.run(
                (*command, *step),
                env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                last = (done.stderr.strip().splitlines() or ["it did not say why"])[-1]
                raise ChromiumMissing(f"{missing}; apt-get {step[0]} failed: {last}") from None
        return find_chromium()


@asynccontextmanager
async def launched() -> AsyncIterator[Browser]:
    """Run a Chromium without a window.

    Raises:
        ChromiumMissing: there is none; the message says how to get one.
    """
    program = find_chromium()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=[NOWHERE, CAMERA])
        try:
            yield browser
        finally:
            await browser.close()


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{install_chromium()}\n")
    except ChromiumMissing as error:
        sys.exit(f"error: {error}")
