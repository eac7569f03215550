"""The table of reasons for people: docs/errors.md, and the page that a problem's `type` leads to."""

from gateway.reasons import REASONS


def as_markdown() -> str:
    """Return the table as docs/errors.md shows it."""
    lines = [
        "# Errors of the REST API",
        "",
        "Every answer that is not 2xx or 304 is `application/problem+json` (RFC 9457). `reason` is stable:",
        "match on it, not on the sentence. `type` is `/errors#<reason>`, which the gateway serves as a",
        "page. `errors` lists all faults of the input; a pointer leads into the body, or begins with",
        "`/query`, `/header` or `/path`. `traceId` finds the log lines.",
        "",
        "Under `Prefer: wait` the error of an operation that FAILED or was CANCELLED is answered as a",
        "problem of its own reason; `metadata.operation` is the operation's URL and",
        "`metadata.operationState` its state. A reason that this table does not list has the status of its",
        "gRPC code. Only what is not parsable as HTTP at all is refused in plain text.",
        "",
        "This page is generated from the gateway's table of reasons: `python -m gateway.reason_pages`.",
        "",
        "| Reason | Status | Meaning | What to do |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| `{name}` | {reason.status} | {reason.title} | {reason.advice} |"
        for name, reason in sorted(REASONS.items())
    ]
    return "\n".join(lines) + "\n"


def as_page() -> str:
    """Return the table as the HTML page that `type` leads to."""
    rows = "".join(
        f'<tr id="{name}"><td><code>{name}</code></td><td>{reason.status}</td>'
        f"<td>{reason.title}</td><td>{reason.advice}</td></tr>"
        for name, reason in sorted(REASONS.items())
    )
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>qcontroller errors</title></head>'
        "<body><h1>Errors</h1><table>"
        "<tr><th>Reason</th><th>Status</th><th>Meaning</th><th>What to do</th></tr>"
        f"{rows}</table></body></html>"
    )


if __name__ == "__main__":
    print(as_markdown(), end="")
