"""Small HTTP servers in the event loop of the tests: pages of another origin, and a reverse proxy."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

NOT_PASSED_ON = frozenset({"connection", "content-length", "host", "keep-alive", "transfer-encoding"})
"""Headers of one connection, in lower case."""


@asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[str]:
    """Serve an application on a free port, and give its URL."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def served_page(html: str, headers: Mapping[str, str] | None = None) -> AsyncIterator[str]:
    """Serve one page at every path, and give its URL."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=html, content_type="text/html", headers=headers)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with served(app) as url:
        yield url


@asynccontextmanager
async def proxied(target: str, prefix: str) -> AsyncIterator[str]:
    """Serve another server's paths under a prefix, as a reverse proxy does, and give the URL with the prefix.

    Whatever is asked outside of the prefix is not found.
    """
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        async def pass_on(request: web.Request) -> web.StreamResponse:
            headers = {name: value for name, value in request.headers.items() if name.lower() not in NOT_PASSED_ON}
            url = f"{target}/{request.match_info['path']}{'?' if request.query_string else ''}{request.query_string}"
            async with session.request(
                request.method, url, headers=headers, data=await request.read(), allow_redirects=False
            ) as answer:
                kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in NOT_PASSED_ON]
                body = await answer.read()
                response = web.Response(status=answer.status, body=body)
                response.headers.clear()
                response.headers.extend(kept)
                return response

        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", f"{prefix}/{{path:.*}}", pass_on)
        async with served(app) as url:
            yield f"{url}{prefix}"
