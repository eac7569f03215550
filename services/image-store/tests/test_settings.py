"""What of the settings concerns fetching and unpacking."""

import pytest
from image_store.settings import Settings, parse_settings
from qcontroller.settings.v1.settings_pb2 import DirectoryBackend, FetchSettings, ImageStoreSettings
from servicekit.settings import SettingsError


def parsed(**fields: object) -> Settings:
    message = ImageStoreSettings(
        database_url="sqlite:////nowhere/image-store.db", directory=DirectoryBackend(path="/nowhere")
    )
    for name, value in fields.items():
        if isinstance(value, FetchSettings):
            message.fetch.CopyFrom(value)
        else:
            setattr(message, name, value)
    return parse_settings(message)


def test_nothing_private_is_allowed_unless_it_is_said() -> None:
    policy = parsed().fetch_policy
    assert not policy.permits("localhost", "127.0.0.1")
    assert policy.permits("example.org", "93.184.216.34")


def test_networks_addresses_and_names_are_allowed() -> None:
    allow = ["10.20.0.0/16", "192.168.7.9", "fd00::/8", "mirror.example.org", "localhost"]
    policy = parsed(fetch=FetchSettings(allow=allow)).fetch_policy
    assert all(policy.permits("x", one) for one in ("10.20.255.1", "192.168.7.9", "fd00::1"))
    assert policy.permits("mirror.example.org", "172.16.0.1")
    assert policy.permits("localhost", "::1")
    assert not policy.permits("x", "192.168.7.10")


@pytest.mark.parametrize(
    "text", ["10.20.0.1/16", "10.20.0.0/33", "10.20.0", "300.1.1.1", "a b", "", "*.org."]
)
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"fetch\.allow"):
        parsed(fetch=FetchSettings(allow=[text]))


def test_compressed_uploads_have_the_limit_of_others_unless_it_is_said() -> None:
    assert parsed(max_upload="1G").limits.unpack.max_bytes == 2**30
    limits = parsed(max_upload="1G", max_unpacked="2G", max_unpack_ratio=10).limits.unpack
    assert (limits.max_bytes, limits.max_ratio) == (2**31, 10)
