"""What a patch changes, seen from inside the guest."""

from framework.cloud import Cloud, document

OLD = "#cloud-config\nwho: old-data\n"
NEW = "#cloud-config\nwho: new-data\n"


def seed_holds(cloud: Cloud, name: str, text: str) -> bool:
    """Tell whether the seed's disk, as the guest reads it, contains a text."""
    # To the guest's grep a NUL ends the line, and files on the seed begin behind padding.
    look = f"tr '\\0' '\\n' < /dev/vdb | grep -qF '{text}'"
    answer = cloud.exec(name, "/bin/sh", "-c", look)
    return bool(answer["exitCode"] == 0)


def test_another_cloud_init_is_in_the_guest_after_the_next_start_under_another_instance_id(
    cloud: Cloud,
) -> None:
    instance = cloud.launch_ready(cloudInit={"userdata": OLD})
    name, uuid = instance["name"], instance["id"]
    patch = {"cloudInit": {"userdata": NEW}, "vm": {"memory": "320M"}}
    running = cloud.api.request("PATCH", f"/v1/instances/{name}", json=patch)
    assert (running.status_code, document(running)["reason"]) == (409, "INSTANCE_STATE_CONFLICT")
    assert document(running)["metadata"]["state"] == "RUNNING"
    assert seed_holds(cloud, name, "who: old-data")
    cloud.verb(name, "stop", force=True)
    changed = cloud.api.request("PATCH", f"/v1/instances/{name}", json=patch, headers={"Prefer": "wait=60"})
    assert changed.status_code == 200, changed.text
    assert len(document(changed)["notes"]) == 2
    assert "new-data" not in changed.text
    cloud.verb(name, "start")
    cloud.wait_ready(name)
    assert seed_holds(cloud, name, "who: new-data")
    assert not seed_holds(cloud, name, "who: old-data")
    assert seed_holds(cloud, name, f'instance-id: "{uuid}-1"')
    shrunk = cloud.api.request("PATCH", f"/v1/instances/{name}", json={"vm": {"disk": 1}})
    assert (shrunk.status_code, document(shrunk)["reason"]) == (400, "FIELD_INVALID")
    cloud.delete(name)
