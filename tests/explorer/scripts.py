"""Programs of npm that tests run in a page: axe, and a client made by connect-web. Built once in the cache folder."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.async_api import Page

from tests.environments import BUF, NPM_CI, PROTOS, built

SOURCES = Path(__file__).parent / "programs"
COMMANDS = (
    NPM_CI,
    (BUF, "generate", PROTOS),
    ("node_modules/.bin/esbuild", "connect.ts", "--bundle", "--format=iife", "--outfile=build/connect.js"),
)
GRAVE = frozenset({"serious", "critical"})

RUN_AXE = """axe.run(document, {resultTypes: ["violations"], ...%s}).then(({violations}) =>
  JSON.stringify(violations.map(({id, impact, help, nodes}) => (
    {id, impact, help, nodes: nodes.map((each) => each.target + each.failureSummary)}
  )))
)"""


@dataclass(frozen=True)
class Scripts:
    """JavaScript for a page.

    Attributes:
        axe: axe-core, which looks for what keeps people from using a page.
        connect: defines `search(wire, url, collection, text)`, which calls a server by connect-web.
    """

    axe: str
    connect: str


def build_scripts() -> Scripts:
    """Return the scripts, after building them if they are not there."""
    assert shutil.which("npm"), "there is no npm: install Node.js 20 or newer, or leave the tests out: -m 'not browser'"
    with built(SOURCES, COMMANDS, name="explorer") as folder:
        return Scripts(
            axe=(folder / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8"),
            connect=(folder / "build" / "connect.js").read_text(encoding="utf-8"),
        )


async def grave_violations(page: Page, axe: str, rules: Sequence[str] = ()) -> list[str]:
    """Return what axe finds in a page that is serious or critical, each with its elements; by some of its rules or all.

    axe runs in a world of its own, as extensions of browsers do: the page's policy does not hold there, and still holds
    for the page.
    """
    session = await page.context.new_cdp_session(page)
    tree = await session.send("Page.getFrameTree")
    world = await session.send("Page.createIsolatedWorld", {"frameId": tree["frameTree"]["frame"]["id"]})
    place = {"contextId": world["executionContextId"]}
    await session.send("Runtime.evaluate", {"expression": axe, **place})
    answer = await session.send(
        "Runtime.evaluate",
        {
            "expression": RUN_AXE % json.dumps({"runOnly": list(rules)} if rules else {}),
            "awaitPromise": True,
            "returnByValue": True,
            **place,
        },
    )
    await session.detach()
    assert "exceptionDetails" not in answer, answer["exceptionDetails"]
    found: list[dict[str, Any]] = json.loads(answer["result"]["value"])
    return [f"{each['id']} ({each['help']}): {each['nodes'][:5]}" for each in found if each["impact"] in GRAVE]
