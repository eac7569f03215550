"""Swagger UI and the page of errors: static, from this process alone, under a strict content policy."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Route
from swagger_ui_bundle import swagger_ui_path

from gateway.reason_pages import as_page

_FILES: Final = (
    "index.html",
    "index.css",
    "swagger-ui.css",
    "swagger-ui-bundle.js",
    "swagger-ui-standalone-preset.js",
    "favicon-16x16.png",
    "favicon-32x32.png",
)
# Takes the place of the bundle's own, which loads an example from the internet and asks a validator there.
_INITIALIZER: Final = """window.onload = function () {
  window.ui = SwaggerUIBundle({
    url: "/openapi.yaml",
    dom_id: "#swagger-ui",
    deepLinking: true,
    validatorUrl: null,
    presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
    plugins: [SwaggerUIBundle.plugins.DownloadUrl],
    layout: "StandaloneLayout"
  });
};
"""
_POLICY: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'"
}


def page_routes(*, swagger: bool) -> list[Route]:
    """Return the routes of the pages; without `swagger` only that of the errors."""
    routes = [page_route("/errors", _constant(as_page(), "text/html"))]
    if swagger:
        routes += [
            page_route("/v1/swagger", _to_index),
            page_route("/v1/swagger/swagger-initializer.js", _constant(_INITIALIZER, "text/javascript")),
            page_route("/v1/swagger/{file}", _static),
        ]
    return routes


def page_route(path: str, answer: Callable[[Request], Awaitable[Response]]) -> Route:
    """Return the route of a page, which is only read."""

    async def endpoint(request: Request) -> Response:
        if request.method != "GET":
            raise HTTPException(405)
        return await answer(request)

    # All methods: what this route does not take would be looked for in the contract.
    return Route(path, endpoint, methods=["GET", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"])


def _constant(content: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        del request
        return Response(content, media_type=media_type, headers=_POLICY)

    return answer


async def _to_index(request: Request) -> Response:
    del request
    return RedirectResponse("/v1/swagger/index.html")


async def _static(request: Request) -> Response:
    name = request.path_params["file"]
    if name not in _FILES:
        raise HTTPException(404)
    return FileResponse(Path(str(swagger_ui_path)) / name, headers=_POLICY)
