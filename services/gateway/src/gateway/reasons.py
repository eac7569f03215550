"""The one table that gives every reason its HTTP status, its title and what to do about it.

docs/errors.md and the page that problems' `type` leads to are written from it. It must never depend on who
raised a reason.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Reason:
    """What HTTP says of a reason: status, title, advice, seconds for Retry-After (0: none)."""

    status: int
    title: str
    advice: str
    retry_after_s: int = 0


REASONS: Final[dict[str, Reason]] = {
    # The request itself.
    "FIELD_INVALID": Reason(400, "The request is invalid", "Correct every fault that `errors` lists."),
    "BODY_MALFORMED": Reason(400, "The body cannot be read", "Send well-formed JSON, or a complete form."),
    "PAGE_TOKEN_INVALID": Reason(
        400, "The page token is not valid here", "List again from the first page, with the same filters."
    ),
    "CURSOR_INVALID": Reason(
        400, "The cursor is not one of ours", "Send a cursor as an event carried it, or none."
    ),
    "UPLOAD_TRUNCATED": Reason(400, "The upload ended early", "Send it again; nothing was stored."),
    "UPLOAD_STALLED": Reason(408, "The upload stood still", "Send it again; nothing was stored."),
    "BODY_TOO_LARGE": Reason(413, "The body is too large", "Send less; `metadata.limitBytes` is the limit."),
    "MEDIA_TYPE_UNSUPPORTED": Reason(
        415, "The body's type is not taken here", "Set Content-Type to one of `metadata.supported`."
    ),
    "NOT_ACCEPTABLE": Reason(
        406, "No acceptable form of the answer", "Widen Accept to one of `metadata.offered`."
    ),
    "RANGE_NOT_SATISFIABLE": Reason(
        416,
        "The range lies outside",
        "Ask for bytes below `metadata.totalBytes`; of a console, from `metadata.firstByte` on.",
    ),
    "PATH_NOT_FOUND": Reason(404, "There is no such path", "See /openapi.yaml for the paths."),
    "METHOD_NOT_ALLOWED": Reason(405, "The method is not allowed here", "Use one of the Allow header."),
    "WEBSOCKET_NOT_SERVED": Reason(
        400,
        "There is no WebSocket here",
        "Ask without an Upgrade header; only events, exec and consoles have this form.",
    ),
    "WEBSOCKET_REQUIRED": Reason(
        426,
        "This is a WebSocket",
        "Ask with `Upgrade: websocket`; a program is also run by POST, a console's log read by GET.",
    ),
    "HOST_NOT_ALLOWED": Reason(
        421,
        "This is not a name of the gateway",
        "Use localhost, or add the name to the gateway's `externalNames`.",
    ),
    "ORIGIN_NOT_ALLOWED": Reason(
        403,
        "Pages of this origin may not use the gateway",
        "Add the page's host to the gateway's `externalNames`.",
    ),
    "CONSOLE_TICKET_REQUIRED": Reason(
        403, "A page needs a ticket", "POST …/console/tickets, and open the `url` that it answers."
    ),
    "CONSOLE_TICKET_USED": Reason(
        403, "The ticket was used before", "Ask for another one; each is good once."
    ),
    "CONSOLE_TICKET_EXPIRED": Reason(
        403, "The ticket is too old", "Ask for another one; each is good for 30 s."
    ),
    "CONSOLE_TICKET_UNKNOWN": Reason(
        403,
        "The ticket is not good here",
        "Ask for another one, for this instance and at this gateway.",
    ),
    "PRECONDITION_FAILED": Reason(
        412,
        "It is not as the precondition says",
        "Read it again and repeat with its ETag; after `If-None-Match: *` choose another name.",
    ),
    "IDEMPOTENCY_KEY_REUSED": Reason(
        422, "The key was used for another request", "Use a new Idempotency-Key for another request."
    ),
    # What is not there.
    "INSTANCE_NOT_FOUND": Reason(404, "There is no such instance", "List the instances: GET /v1/instances."),
    "IMAGE_NOT_FOUND": Reason(
        404, "There is no such image", "List the images (GET /v1/images) or upload it."
    ),
    "OPERATION_NOT_FOUND": Reason(
        404, "There is no such operation", "Finished operations are kept for 30 days."
    ),
    "NODE_NOT_FOUND": Reason(404, "There is no such node", "List the nodes: GET /v1/nodes."),
    "ORPHAN_NOT_FOUND": Reason(
        404, "There is no such orphan", "List the node's orphans: GET /v1/nodes/{node}/orphans."
    ),
    "CURSOR_EXPIRED": Reason(
        410, "The cursor is too old", "List the resources again, then watch without a cursor."
    ),
    "READER_TOO_SLOW": Reason(
        410, "The reader fell behind", "Watch again after the cursor of `stream.gap`, and read faster."
    ),
    # The present state is in the way.
    "INSTANCE_ALREADY_EXISTS": Reason(
        409, "The name is taken", "Choose another name, or delete the instance first."
    ),
    "INSTANCE_STATE_CONFLICT": Reason(
        409, "The instance's state does not allow this", "`metadata.allowed` lists what the state allows."
    ),
    "MACHINE_ALREADY_MANAGED": Reason(
        409, "An instance stands for the machine", "Use the instance that `metadata` names."
    ),
    "ORPHAN_NOT_IMPORTABLE": Reason(
        409, "No instance can be made of the machine", "The detail says why; its disk is on the node."
    ),
    "ORPHAN_RUNNING": Reason(409, "The orphan runs", "Import it, or remove it with force."),
    "INSTANCE_PROTECTED": Reason(
        409, "The instance is protected", 'Take the protection away first: PATCH {"protected": false}.'
    ),
    "INSTANCE_EXPIRED": Reason(
        409, "The instance's time has run out", "PATCH `ttl` or `expireTime`: later, or null for no end."
    ),
    "INSTANCE_WITHOUT_LEASE": Reason(
        409, "The instance has no lease", 'Give it one: PATCH {"lease": "60s"}.'
    ),
    "LEASE_LOST": Reason(
        409, "The lease ran out", "PATCH `lease` (null for none) or start it, before it is deleted."
    ),
    "OPERATION_IN_PROGRESS": Reason(
        409,
        "Another operation is running on the instance",
        "Wait for `metadata.operation`, or supersede it by a forced stop or a delete.",
        1,
    ),
    "OPERATION_NOT_CANCELLABLE": Reason(
        409,
        "The operation can no longer be cancelled",
        "It has finished or passed its point of no return; look at it.",
    ),
    "OPERATION_CANCELLED": Reason(
        409, "The operation was cancelled", "Repeat the request if it is still wanted."
    ),
    "CANCELLED": Reason(409, "The operation was cancelled", "Repeat the request if it is still wanted."),
    "SUPERSEDED": Reason(409, "Another operation took its place", "Look at the successor in `metadata`."),
    "OPERATION_FAILED": Reason(500, "The operation failed", "Look at `metadata.operation`."),
    "IMAGE_IN_USE": Reason(
        409, "Instances use the image", "Delete the instances that `metadata` names first."
    ),
    "PORT_IN_USE": Reason(409, "A host port is taken", "Publish another port of the host."),
    "ADDRESS_IN_USE": Reason(
        409,
        "The address is another instance's",
        "Choose another; `metadata.holder` has this one until it is deleted.",
    ),
    "CONSOLE_FOLLOWERS_EXHAUSTED": Reason(
        503, "Too many follow consoles", "End one that follows; `metadata.limit` is how many may.", 5
    ),
    "GUEST_AGENT_UNAVAILABLE": Reason(
        409, "The guest agent does not answer", "Wait for AgentConnected; the image needs qemu-guest-agent."
    ),
    "GUEST_FILE_NOT_FOUND": Reason(
        404, "The guest has no such file or directory", "Look at the path; directories are not made."
    ),
    "GUEST_FILE_REFUSED": Reason(
        409,
        "The guest refuses the file",
        "The detail carries the guest's words: read-only, full, not permitted, or no regular file.",
    ),
    # Understood, but it cannot be done with what was given.
    "IMAGE_DIGEST_MISMATCH": Reason(
        422, "The digest differs", "Check the bytes and the digest that you gave."
    ),
    "IMAGE_UNSAFE": Reason(
        422, "The image is not safe to open", "`metadata.rule` tells which rule; convert it with qemu-img."
    ),
    "IMAGE_FORMAT_UNKNOWN": Reason(
        422, "These bytes are no disk image", "Upload a qcow2 or a raw disk image, at most compressed once."
    ),
    "IMAGE_DAMAGED": Reason(
        422, "The compressed image cannot be unpacked", "Compress it again, and upload or serve it whole."
    ),
    "IMAGE_UNPACKS_TOO_LARGE": Reason(
        422, "The image unpacks to too much", "`metadata` has the limit; upload it as qcow2, or unpacked."
    ),
    "IMAGE_SOURCE_FORBIDDEN": Reason(
        422,
        "Nothing is fetched from there",
        "Fetch from a public address, or have the image store's `fetch.allow` name the host.",
    ),
    "IMAGE_SOURCE_REFUSED": Reason(
        422, "The URL brings no image", "Check the URL with another client; the detail has the answer."
    ),
    "GUEST_FILE_DIGEST_MISMATCH": Reason(
        422,
        "The file's bytes differ from their digest",
        "Send it again; what was there before still is.",
    ),
    "GUEST_PROGRAM_NOT_FOUND": Reason(
        422, "The guest has no such program", "Give the path of a program that is in the guest."
    ),
    "NETWORK_UNAVAILABLE": Reason(
        422, "The network cannot be had here", "Choose a network that the node's doctor reports usable."
    ),
    "ARCH_UNSUPPORTED": Reason(
        422, "No node runs this architecture", "Use an image of an architecture that a node has."
    ),
    "GUEST_AGENT_REFUSED": Reason(
        409, "The guest agent refuses", "The detail carries its words; the guest may forbid the command."
    ),
    "MACHINE_NOT_FOUND": Reason(
        404, "The node has no such machine", "Start the instance again, or delete it."
    ),
    "MACHINE_STATE_CONFLICT": Reason(
        409, "The machine's state does not allow this", "Read the instance again and repeat what it allows."
    ),
    "STALE_FENCE": Reason(
        409,
        "A later operation has the machine",
        "Look at the instance's operations; another controller may have imported the machine.",
    ),
    "FOREIGN_OBJECT": Reason(
        409, "An object of another owner is in the way", "See the detail and the node's leaks; remove it."
    ),
    "SECRET_UNREADABLE": Reason(
        409,
        "A stored secret cannot be opened",
        "Give the controller the key that sealed it; see docs/secrets.md.",
    ),
    "DISK_UNSAFE": Reason(
        409,
        "The machine's own disk is not safe to open",
        "The guest or somebody on the node changed its header; delete the instance and launch it again.",
    ),
    # Something that is needed is away or exhausted.
    "IMAGE_SOURCE_UNAVAILABLE": Reason(
        502, "The URL's server cannot be used now", "Try again later; the detail has what went wrong.", 5
    ),
    "HOST_CAPACITY_EXHAUSTED": Reason(
        503, "No node has room", "Stop or delete instances, or ask for less.", 5
    ),
    "CONSOLE_VIEWERS_EXHAUSTED": Reason(
        503, "Too many look at consoles", "Detach one; `metadata.limit` is the limit.", 5
    ),
    "RESOURCE_EXHAUSTED": Reason(503, "A limit is reached", "Try again later.", 5),
    "DISK_FULL": Reason(503, "The disk is full", "Free space on the node or in the image store.", 5),
    "RUNNER_UNAVAILABLE": Reason(
        503, "The node cannot be reached", "See GET /readyz; the runner must be up.", 1
    ),
    "VM_HOST_UNAVAILABLE": Reason(
        503, "vm-host cannot be reached", "See GET /readyz; vm-host must be up on the node.", 1
    ),
    "QEMU_UNAVAILABLE": Reason(503, "QEMU cannot be run", "See the node's doctor; install QEMU.", 5),
    "IMAGE_STORE_UNAVAILABLE": Reason(
        503, "The image store cannot be reached", "See GET /readyz; the image store must be up.", 1
    ),
    "CONTROLLER_UNAVAILABLE": Reason(
        503, "The controller cannot be reached", "See GET /readyz; the controller must be up.", 1
    ),
    "STORAGE_UNAVAILABLE": Reason(503, "The storage cannot be used", "See GET /readyz and the log.", 5),
    "SERVICE_NOT_READY": Reason(503, "Not everything is up", "`dependencies` tells what is down.", 1),
    "UNAVAILABLE": Reason(503, "Something that is needed is away", "Try again.", 1),
    "QEMU_UNRESPONSIVE": Reason(
        503, "QEMU does not answer", "Try again; a forced stop ends it whatever it does.", 5
    ),
    "SUBJECT_BUSY": Reason(503, "An earlier action on the machine still runs", "Try again.", 5),
    # Time ran out.
    "READINESS_TIMEOUT": Reason(
        504, "It did not become true in time", "`metadata` names the condition; look at the console."
    ),
    "GUEST_EXEC_TIMEOUT": Reason(504, "The program did not end in time", "Give a longer timeout."),
    "DEADLINE_EXCEEDED": Reason(504, "It did not end in time", "Try again."),
    "MACHINE_STUCK": Reason(
        504, "QEMU does not end", "Look at the node: a process that waits for its disk cannot be killed."
    ),
    "STEP_NOT_DONE": Reason(
        504, "A step did not take effect in time", "Look at its stages: `metadata.operation`."
    ),
    # What became of a machine.
    "MACHINE_LOST": Reason(500, "The machine has no process", "Start the instance again."),
    "GUEST_SHUTDOWN": Reason(500, "The guest powered itself off", "Look at the console; start it again."),
    "KERNEL_PANIC": Reason(500, "The guest's kernel panicked", "Look at the console."),
    "QEMU_START_FAILED": Reason(500, "QEMU did not start", "The detail carries QEMU's own words."),
    "QEMU_EXITED": Reason(500, "QEMU ended by itself", "The instance's status carries QEMU's stderr."),
    "QEMU_KILLED": Reason(500, "A signal ended QEMU", "Ask the host who sent it: the OOM killer logs it."),
    "VM_HOST_EXITED": Reason(500, "vm-host ended, and the machine with it", "Start the instance again."),
    "HOST_RESTARTED": Reason(500, "The host was restarted", "Start the instance again."),
    "HOST_SHUTDOWN": Reason(500, "The host was shut down", "Start the instance again."),
    "RESTART_LIMIT_REACHED": Reason(
        500, "It was restarted too often", "Look at what ended it; start it, which counts anew, or delete it."
    ),
    "EXPIRED": Reason(500, "Its time has run out", "PATCH `ttl` or `expireTime` before it is started again."),
    "UNDO_FAILING": Reason(
        500, "Undoing does not succeed", "It goes on slowly; `metadata.cause` and the node's leaks tell more."
    ),
    "UNDO_UNKNOWN_STEP": Reason(
        500, "Another version began this", "Delete the instance with force; see the node's leaks."
    ),
    "STEP_NOT_UNDONE": Reason(500, "A step could not be undone", "It is tried again; see the node's leaks."),
    "UNIMPLEMENTED": Reason(501, "Not built", "Use another way; /openapi.yaml lists what there is."),
    "INTERNAL": Reason(500, "Internal error", "Look for the trace id in the logs and report it."),
}

# For reasons that the table does not know: the status that the gRPC code stands for.
BY_CODE: Final[dict[str, Reason]] = {
    "INVALID_ARGUMENT": REASONS["FIELD_INVALID"],
    "OUT_OF_RANGE": REASONS["FIELD_INVALID"],
    "NOT_FOUND": Reason(404, "There is no such thing", "Check the name."),
    "ALREADY_EXISTS": Reason(409, "It exists already", "Choose another name."),
    "FAILED_PRECONDITION": Reason(
        409, "The present state does not allow this", "Look at the resource's state."
    ),
    "ABORTED": Reason(409, "Something else was faster", "Try again.", 1),
    "CANCELLED": REASONS["UNAVAILABLE"],
    "PERMISSION_DENIED": Reason(403, "Not allowed", "Check what you may do."),
    "UNAUTHENTICATED": Reason(403, "Not allowed", "Check what you may do."),
    "RESOURCE_EXHAUSTED": REASONS["RESOURCE_EXHAUSTED"],
    "UNAVAILABLE": REASONS["UNAVAILABLE"],
    "DEADLINE_EXCEEDED": REASONS["DEADLINE_EXCEEDED"],
    "UNIMPLEMENTED": REASONS["UNIMPLEMENTED"],
}


def reason_of(name: str, code_name: str = "") -> Reason | None:
    """Return what HTTP says of the reason `name`, or else of the gRPC code; None if neither is known."""
    return REASONS.get(name) or BY_CODE.get(code_name)
