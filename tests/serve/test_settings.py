"""The server's settings: configs/serve.yaml and the models say the same, and what cannot be used is refused."""

from typing import Any

import pytest
from omegaconf import OmegaConf
from pydantic import ValidationError

from lesion.core.errors import ConfigError
from lesion.imaging.limits import Limits
from serve.http.schemas import ServerLimits
from serve.settings import AccessSettings, Section, ServerSettings, TraceSettings
from tests.support.paths import CONFIGS

SECTIONS = (ServerSettings, AccessSettings, TraceSettings)


@pytest.mark.parametrize("section", SECTIONS)
def test_the_config_has_the_same_keys_and_defaults(section: type[Section]) -> None:
    values: Any = OmegaConf.to_container(OmegaConf.select(OmegaConf.load(CONFIGS / "serve.yaml"), section.section))
    assert isinstance(values, dict)
    assert list(values) == list(section.model_fields)
    assert section.from_config(values) == section() == section.from_config(None)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"threads": "abc"}, "server.threads=abc must be a whole number, more than 0."),
        ({"workers": 1.5}, "server.workers=1.5 must be a whole number, more than 0."),
        ({"workers": True}, "server.workers=True must be a whole number, more than 0."),
        ({"workers": -1}, "server.workers=-1 must be more than 0."),
        ({"api_processes": 0}, "server.api_processes=0 must be more than 0."),
        ({"request_timeout": float("nan")}, "server.request_timeout=nan must be more than 0."),
        ({"batch_timeout": "abc"}, "server.batch_timeout=abc must be a number."),
        ({"batch_timeout": -1.0}, "server.batch_timeout=-1.0 must be at least 0."),
        ({"batch_timeout": 30.0}, "server.batch_timeout=30.0 must be less than server.request_timeout=30.0."),
        ({"precision": "foo"}, "server.precision='foo' is unknown. Use 'auto', 'f32', 'bf16' or 'f16'."),
        ({"device": "tpu"}, "server.device='tpu' is unknown. Use 'auto', 'cpu', 'cuda' or 'torch'."),
    ],
)
def test_a_value_that_cannot_be_used_is_refused(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ServerSettings.from_config(values)
    assert caught.value.message == sentence


def test_all_faults_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        AccessSettings.from_config({"per_hour": 1, "per_day": 0, "open_access": "yes"})
    for sentence in (
        "access.per_hour is unknown. The settings are open_access, per_minute, per_day.",
        "access.per_day=0 must be more than 0.",
        "access.open_access=yes must be true or false.",
    ):
        assert sentence in caught.value.message


def test_settings_do_not_change() -> None:
    settings = ServerSettings(workers=2)
    with pytest.raises(ValidationError, match="frozen"):
        settings.workers = 3


def test_limits_derive_from_the_settings() -> None:
    settings = ServerSettings(max_image_bytes=3, max_pixels=5, min_side=7, queue_size=11, request_timeout=13.0)
    assert settings.image_limits == Limits(max_bytes=3, max_pixels=5, min_side=7)
    assert ServerLimits.of(settings).model_dump() == {
        "max_body_bytes": 21 * 2**20,
        "max_upload_bytes": 64 * 2**20,
        "max_image_bytes": 3,
        "max_pixels": 5,
        "min_side": 7,
        "max_archive_entries": 1000,
        "queue_size": 11,
        "request_timeout_s": 13.0,
    }
