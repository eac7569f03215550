"""Protobuf messages to the store's values and back; messages go no further in than this package."""

from collections.abc import Iterable

from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from qcontroller.event.v1 import event_pb2
from qcontroller.image.v1 import image_pb2, internal_pb2

from image_store.catalogue.outbox import StoredEvent
from image_store.errors import InvalidRequestError
from image_store.image import Image, ImageState, Pin, Preconditions
from image_store.requests import UploadRequest, parse_upload

_STATES = {
    image_pb2.IMAGE_STATE_READY: ImageState.READY,
    image_pb2.IMAGE_STATE_DELETING: ImageState.DELETING,
}
_STATE_MESSAGES = {state: message for message, state in _STATES.items()}


def image_message(image: Image) -> image_pb2.Image:
    """Return `image` as a message."""
    created = Timestamp()
    created.FromDatetime(image.create_time)
    return image_pb2.Image(
        name=image.name,
        digest=image.digest,
        stored_digest=image.blob.stored_digest,
        format=image.blob.format.value,
        state=_STATE_MESSAGES[image.state],
        size_bytes=image.blob.size_bytes,
        virtual_size_bytes=image.blob.virtual_size_bytes,
        arch=image.arch.value,
        labels=image.labels,
        create_time=created,
        used_by=image.used_by,
        etag=image.etag,
    )


def pin_message(pin: Pin) -> internal_pb2.Pin:
    """Return `pin` as a message."""
    created = Timestamp()
    created.FromDatetime(pin.create_time)
    return internal_pb2.Pin(
        instance_id=pin.instance_id,
        instance_name=pin.instance_name,
        image_name=pin.image_name,
        digest=pin.digest,
        stored_digest=pin.stored_digest,
        create_time=created,
    )


def event_message(event: StoredEvent) -> event_pb2.Event:
    """Return `event` as a message."""
    time = Timestamp()
    time.FromDatetime(event.time)
    resource = Struct()
    resource.update(event.resource)
    return event_pb2.Event(cursor=event.cursor, time=time, type=event.type.value, resource=resource)


def upload_request(upload: image_pb2.ImageUpload) -> UploadRequest:
    """Return the request that opens an upload.

    Raises:
        InvalidRequestError: With all faults.
    """
    return parse_upload(
        name=upload.name,
        expected_digest=upload.expected_digest,
        content_length=upload.content_length,
        labels=dict(upload.labels),
        arch=upload.arch,
        request_id=upload.request_id,
        preconditions=Preconditions(upload.if_match, upload.if_none_match),
    )


def states_of(states: Iterable["image_pb2.ImageState.ValueType"]) -> tuple[ImageState, ...]:
    """Return the states of a filter.

    Raises:
        InvalidRequestError: One is not a state.
    """
    found = []
    for index, state in enumerate(states):
        if state not in _STATES:
            raise InvalidRequestError.at(f"/states/{index}", "this is no state of an image")
        found.append(_STATES[state])
    return tuple(found)
