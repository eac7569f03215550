"""Configuration is protojson, strictly, with variables over it."""

from pathlib import Path

import pytest
from qcontroller.settings.v1.settings_pb2 import ControllerSettings, GatewaySettings
from servicekit.settings import SettingsError, load_settings


def gateway(text: str | None, tmp_path: Path, **environ: str) -> GatewaySettings:
    path = None
    if text is not None:
        path = tmp_path / "gateway.json"
        path.write_text(text, encoding="utf-8")
    return load_settings(GatewaySettings(), path, env_prefix="QC_GATEWAY_", environ=environ)


@pytest.mark.parametrize("key", ["imageStore", "image_store"])
def test_both_casings_are_read(tmp_path: Path, key: str) -> None:
    assert gateway(f'{{"{key}": "unix:/x"}}', tmp_path).image_store == "unix:/x"


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"colour": "red"}',
        '{"listen": 5}',
        '{"listen": "a", "listen": "b"}',
        '{"maxBodyBytes": -1}',
    ],
)
def test_what_is_not_the_message_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match=r"gateway\.json"):
        gateway(text, tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="none"):
        load_settings(GatewaySettings(), tmp_path / "none", env_prefix="QC_", environ={})


def test_variables_win_over_the_file(tmp_path: Path) -> None:
    settings = gateway(
        '{"listen": "127.0.0.1:1", "telemetry": {"logLevel": "INFO"}}',
        tmp_path,
        QC_GATEWAY_LISTEN="127.0.0.1:2",
        QC_GATEWAY_TELEMETRY__LOG_LEVEL="DEBUG",
        QC_GATEWAY_SWAGGER_DISABLED="true",
        QC_GATEWAY_MAX_BODY_BYTES="7",
        OTHER="ignored",
    )
    assert settings.listen == "127.0.0.1:2"
    assert settings.telemetry.log_level == "DEBUG"
    assert settings.swagger_disabled
    assert settings.max_body_bytes == 7


def test_a_list_is_comma_separated_and_replaces_the_files(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text('{"listen": ["unix:/old"]}', encoding="utf-8")
    settings = load_settings(
        ControllerSettings(), path, env_prefix="QC_C_", environ={"QC_C_LISTEN": "unix:/a,127.0.0.1:1"}
    )
    assert list(settings.listen) == ["unix:/a", "127.0.0.1:1"]


def test_an_unknown_variable_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="QC_GATEWAY_COLOUR"):
        gateway(None, tmp_path, QC_GATEWAY_COLOUR="red")
