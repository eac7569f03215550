"""Swagger UI and the page of errors: static, from this process alone, under a strict content policy."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Route
from swagger_ui_bundle import swagger_ui_path

from gateway.reasons import as_page

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
    routes = [Route("/errors", _constant(as_page(), "text/html"))]
    if swagger:
        routes += [
            Route("/v1/swagger", _to_index),
            Route("/v1/swagger/swagger-initializer.js", _constant(_INITIALIZER, "text/javascript")),
            Route("/v1/swagger/{file}", _static),
        ]
    return routes


def _constant(content: str, media_type: str) -> Callable[[Request], Response]:
    async def answer(request: Request) -> Response:
        del request
        return Response(content, media_type=media_type, headers=_POLICY)

    return answer  # type: ignore[return-value]  # Starlette takes coroutine functions as well


async def _to_index(request: Request) -> Response:
    del request
    return RedirectResponse("/v1/swagger/index.html")


async def _static(request: Request) -> Response:
    name = request.path_params["file"]
    if name not in _FILES:
        raise HTTPException(404)
    return FileResponse(Path(str(swagger_ui_path)) / name, headers=_POLICY)
