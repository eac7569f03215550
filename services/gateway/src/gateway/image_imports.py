"""Handler of /v1/images/import: an operation of the controller whose result is an image of the store."""

from qcontroller.controller.v1 import image_import_pb2 as pb
from qcontroller.controller.v1 import operation_pb2
from qcontroller.image.v1 import image_pb2
from starlette.responses import Response

from gateway.answers import json_response
from gateway.backends import CONTROLLER, IMAGE_STORE, Backends, ask
from gateway.calls import Call
from gateway.convert import to_json
from gateway.mutations import UNFINISHED, Mutations, failure_of
from gateway.requests import options_of

# The name of a host is resolved before the import is accepted.
_ACCEPT_S = 30.0


class ImageImports:
    """Images from URLs over HTTP."""

    def __init__(self, peers: Backends, mutations: Mutations) -> None:
        self._imports = peers.imports
        self._images = peers.images
        self._mutations = mutations

    async def take(self, call: Call) -> Response:
        """POST /v1/images/import."""
        body = call.body
        request = pb.ImportImageRequest(
            name=body["name"],
            url=body["url"],
            digest=body["digest"],
            labels=body.get("labels", {}),
            arch=body.get("arch", ""),
            options=options_of(call),
        )
        answer = await ask(CONTROLLER, self._imports.ImportImage, request, deadline_s=_ACCEPT_S)
        wait_s = call.wait_s
        headers = {"Idempotency-Replayed": "true"} if answer.replayed else {}
        if wait_s is not None:
            headers["Preference-Applied"] = f"wait={wait_s}"
        if not answer.HasField("operation"):
            return await self._image(body["name"], 200, headers)
        operation = answer.operation
        if wait_s is not None:
            operation = await self._mutations.finished(operation, wait_s)
            if operation.state == operation_pb2.OPERATION_STATE_SUCCEEDED:
                return await self._image(body["name"], 201, headers)
            if operation.state not in UNFINISHED:
                raise failure_of(operation, headers)
        return self._mutations.accepted(operation, headers)

    async def _image(self, name: str, status: int, headers: dict[str, str]) -> Response:
        answer = await ask(IMAGE_STORE, self._images.GetImage, image_pb2.GetImageRequest(name=name))
        if status == 201:
            headers["Location"] = f"/v1/images/{name}"
        return json_response(to_json(answer.image), status, {**headers, "ETag": f'"{answer.image.etag}"'})
