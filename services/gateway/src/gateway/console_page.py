"""The page of a serial console: this package's own files and xterm.js, which `tools/console-page` puts there.

Static, from this process alone. The page knows its instance by its own path and gets in by a ticket, as any
page does.
"""

import asyncio
from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from gateway.swagger import page_route

_HERE: Final = Path(__file__).parent
_OWN: Final = _HERE / "page"
VENDORED: Final = _HERE / "vendored"
_OWN_FILES: Final = ("console.js", "console.css")
_VENDORED_FILES: Final = ("xterm.js", "xterm.css", "addon-fit.js", "LICENSE.xterm", "LICENSE.addon-fit")
# xterm.js writes a style sheet of its own; nothing else is inline, and nothing comes from elsewhere.
_POLICY: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
}


def console_page_routes() -> list[Route]:
    """Return the routes of the page and its files."""
    return [
        page_route("/v1/instances/{name}/console/page", _page),
        page_route("/v1/console/{file}", _file),
    ]


async def _page(request: Request) -> Response:
    del request
    built = await asyncio.to_thread(_is_built)
    return FileResponse(_OWN / ("console.html" if built else "unbuilt.html"), headers=_POLICY)


async def _file(request: Request) -> Response:
    name = request.path_params["file"]
    if name in _OWN_FILES:
        return FileResponse(_OWN / name, headers=_POLICY)
    if name not in _VENDORED_FILES or not await asyncio.to_thread(_is_built):
        raise HTTPException(404)
    media_type = "text/plain" if name.startswith("LICENSE") else None
    return FileResponse(VENDORED / name, headers=_POLICY, media_type=media_type)


def _is_built() -> bool:
    return all((VENDORED / name).is_file() for name in _VENDORED_FILES)
