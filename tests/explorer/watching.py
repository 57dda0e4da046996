"""What a page must not do while a test looks at it: report an error, break its own policy, or ask another server."""

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from playwright.async_api import BrowserContext, ConsoleMessage, Dialog, Page, Request, WebSocket

REPORT_VIOLATIONS = """
addEventListener("securitypolicyviolation", ({effectiveDirective, blockedURI, sample, sourceFile}) => {
  console.error(`policy broken: ${effectiveDirective} by ${blockedURI} ${sample} in ${sourceFile}`);
});
"""
"""Runs in each page before its own scripts. Chromium tells most violations in the console, too; this tells all."""

OWN_SCHEMES = frozenset({"blob"})
"""Of URLs that name what a page made itself."""

GONE = ("ERR_CONNECTION", "ERR_EMPTY_RESPONSE", "ERR_INCOMPLETE", "ERR_SOCKET")
"""What Chromium says of calls to a server that ends: which of them depends on the moment."""


@dataclass
class Watch:
    """Faults of the pages of a test.

    Attributes:
        faults: what pages did that they must not do, in order.
    """

    faults: list[str] = field(default_factory=list)
    _expected: list[re.Pattern[str]] = field(default_factory=list)

    def expect(self, *patterns: str) -> None:
        """Let messages that match one of these patterns pass, as of a call that a test makes fail."""
        self._expected += map(re.compile, patterns)

    @property
    def unexpected(self) -> list[str]:
        """The faults that no pattern matches."""
        return [fault for fault in self.faults if not any(each.search(fault) for each in self._expected)]

    async def follow(self, context: BrowserContext, origin: str) -> None:
        """Watch all pages of a context, which may ask this origin only."""

        def asked(request: Request) -> None:
            self._check(request.url, origin)

        def opened(page: Page) -> None:
            page.on("console", self._told)
            page.on("pageerror", lambda error: self.faults.append(f"error: {error.message}"))
            page.on("dialog", self._asked)
            page.on("crash", lambda _: self.faults.append("the page crashed"))
            page.on("websocket", connected)

        def connected(socket: WebSocket) -> None:
            self._check(re.sub("^ws", "http", socket.url), origin)

        context.on("request", asked)
        context.on("page", opened)
        await context.add_init_script(REPORT_VIOLATIONS)

    def _told(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            # The message of a failed request does not say which.
            self.faults.append(f"{message.type}: {message.text} ({message.location['url']})")

    async def _asked(self, dialog: Dialog) -> None:
        # A page has its own dialogs; a script that does not belong to it would use the browser's.
        self.faults.append(f"dialog: {dialog.message}")
        await dialog.dismiss()

    def _check(self, url: str, origin: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in OWN_SCHEMES and f"{parts.scheme}://{parts.netloc}" != origin:
            self.faults.append(f"asked another origin: {url[:200]}")
