"""The layout: programs of a configuration, with their settings and tokens."""

import json
import stat
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from penumbra.deployments.config import hosted_engines
from penumbra.deployments.config.hosted_engines import IN_FORCE, EnginesInForce, write_file
from penumbra.deployments.config.loader import load
from penumbra.deployments.config.spec import PenumbraSpec
from penumbra.deployments.errors import ConfigInvalid
from penumbra.router.settings import GRACE_SECONDS, GatewaySettings
from penumbra.router.shadow.settings import ShadowSettings
from penumbra.serve.errors import ConfigurationInvalid
from penumbra.serve.supervisor import preflight
from penumbra.serve.supervisor.engines_in_force import kept_engines
from penumbra.serve.supervisor.folder import TOKENS, StateFolder
from penumbra.serve.supervisor.hosted_layout import file_engines
from penumbra.serve.supervisor.layout import Layout, gateway_url, lay_out
from penumbra.serve.supervisor.state import Phase

EXTERNAL = {
    "demo": {
        "baseline": "full",
        "variants": {
            "full": {"url": "http://127.0.0.1:9001"},
            "int8": {"url": "http://127.0.0.1:9002"},
        },
    }
}


def hosted(**engine: Any) -> dict[str, Any]:
    engine = {"source": "weights", "cpus": 0.1, **engine}
    return {"demo": {"baseline": "full", "variants": {"full": {"engine": engine}}}}


def spec_of(folder: Path, models: dict[str, Any], **more: Any) -> PenumbraSpec:
    file = folder / "penumbra.yaml"
    file.write_text(json.dumps({"models": models, **more}))  # JSON is YAML.
    return load(file)


def layout_of(
    folder: Path,
    models: dict[str, Any],
    environment: Mapping[str, str] = MappingProxyType({}),
    **more: Any,
) -> Layout:
    spec = spec_of(folder, models, **more)
    state = StateFolder(spec.state_dir)
    state.logs.mkdir(parents=True)
    return lay_out(spec, folder / "penumbra.yaml", state, Path("/r"), environment)


def settings_of(layout: Layout, index: int) -> GatewaySettings:
    file = Path(layout.gateways[index].command[-1])
    return GatewaySettings.model_validate_json(file.read_bytes())


def test_external_variants_need_no_fleet(tmp_path: Path) -> None:
    layout = layout_of(tmp_path, EXTERNAL)
    assert layout.plan.variants == ()
    assert [(record.variant, record.phase, record.is_hosted) for record in layout.variants] == [
        ("full", Phase.WAITING, False),
        ("int8", Phase.WAITING, False),
    ]


def test_hosted_variant_answers_at_haproxy(tmp_path: Path) -> None:
    layout = layout_of(tmp_path, hosted(), ray={"port": 8123})
    url = "http://127.0.0.1:8123/demo-full"
    assert layout.variants[0].url == url
    assert settings_of(layout, 0).snapshot.models["demo"].variants["full"].url == url
    command = layout.control.command
    endpoints = Path(command[command.index("--endpoints") + 1])
    assert json.loads(endpoints.read_text()) == {"demo": {"full": url}}
    assert layout.plan.port == 8123


def test_gateways_share_a_port_and_have_health_of_their_own(tmp_path: Path) -> None:
    layout = layout_of(
        tmp_path, EXTERNAL, gateway={"port": 7000, "processes": 2, "internal_port": 7100}
    )
    first, second = settings_of(layout, 0), settings_of(layout, 1)
    assert (first.port, second.port) == (7000, 7000)
    assert (first.internal_port, second.internal_port) == (7100, 7101)
    assert (first.gateway_id, second.gateway_id) == ("gateway-0", "gateway-1")
    assert layout.gateways[1].ready_url == "http://127.0.0.1:7101/ready"
    assert layout.gateways[1].stop_seconds > GRACE_SECONDS


def test_gateways_know_whose_pages_may_read_answers(tmp_path: Path) -> None:
    origins = ["https://chat.example", "http://localhost:3000"]
    layout = layout_of(tmp_path, EXTERNAL, gateway={"allowed_origins": origins})
    assert settings_of(layout, 0).allowed_origins == tuple(origins)


def test_gateways_and_the_comparator_know_every_control_process(tmp_path: Path) -> None:
    others = ["http://control-b:8090", "https://control-c"]
    layout = layout_of(tmp_path, EXTERNAL, control={"others": others})
    assert settings_of(layout, 0).other_control_urls == tuple(others)
    assert layout.comparator is not None
    comparator = ShadowSettings.model_validate_json(
        Path(layout.comparator.command[-1]).read_bytes()
    )
    assert comparator.other_control_urls == tuple(others)


@pytest.mark.parametrize("url", ["control-b:8090", "http://", "ws://control-b", "http://b/a", ""])
def test_a_control_process_that_cannot_be_called_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigInvalid, match=r"control\.others"):
        spec_of(tmp_path, EXTERNAL, control={"others": [url]})
    with pytest.raises(ConfigInvalid, match=r"control\.address"):
        spec_of(tmp_path, EXTERNAL, control={"address": url})


@pytest.mark.parametrize(
    "origin", ["chat.example", "https://chat.example/", "https://Chat.example", "", "http://", "**"]
)
def test_origin_that_no_browser_sends_is_refused(tmp_path: Path, origin: str) -> None:
    with pytest.raises(ConfigInvalid, match="allowed_origins"):
        spec_of(tmp_path, EXTERNAL, gateway={"allowed_origins": [origin]})


def test_gateways_cannot_administrate(tmp_path: Path) -> None:
    layout = layout_of(tmp_path, EXTERNAL)
    assert set(layout.gateways[0].environment) == {"PENUMBRA_GATEWAY_TOKEN"}
    assert set(layout.control.environment) == set(TOKENS)


def test_settings_files_are_private(tmp_path: Path) -> None:
    layout_of(tmp_path, hosted())
    files = [file for file in (tmp_path / ".penumbra").iterdir() if file.is_file()]
    assert len(files) == 8
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_gateways_hand_over_where_the_comparator_listens(tmp_path: Path) -> None:
    layout = layout_of(
        tmp_path, EXTERNAL, shadow={"internal_port": 7300, "limits": {"in_flight": 2}}
    )
    assert layout.comparator is not None
    settings = ShadowSettings.model_validate_json(Path(layout.comparator.command[-1]).read_bytes())
    assert settings_of(layout, 0).shadow_socket == settings.socket_path == Path("/r/shadow.sock")
    assert settings.limits.in_flight == 2
    assert layout.comparator.ready_url == "http://127.0.0.1:7300/health"
    assert set(layout.comparator.environment) == {"PENUMBRA_COMPARATOR_TOKEN"}


def test_without_shadow_nothing_is_mirrored(tmp_path: Path) -> None:
    layout = layout_of(tmp_path, EXTERNAL, shadow={"enabled": False})
    assert layout.comparator is None
    assert settings_of(layout, 0).shadow_socket is None


@pytest.fixture
def ports_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_obstacle", lambda *_: None)


@pytest.mark.usefixtures("ports_free")
@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ({"source": "nowhere"}, "models.demo.variants.full.engine.source: found no folder"),
        ({"source": "empty"}, "without config.json"),
        ({"cpus": 4096.0}, "engine.cpus: found 4096"),
        ({"autoscaling": {"min": 0, "max": 2}}, "autoscaling.min: found 0, wanted 1"),
    ],
)
def test_what_this_machine_cannot_give_is_refused(
    tmp_path: Path, engine: dict[str, Any], words: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "config.json").write_text("{}")
    with pytest.raises(ConfigurationInvalid) as refusal:
        preflight.check(spec_of(tmp_path, hosted(**engine)))
    assert words in refusal.value.message


@pytest.mark.usefixtures("ports_free")
def test_missing_ray_is_said_and_not_needed_for_external_variants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosted_engines, "find_spec", lambda _name: None)
    preflight.check(spec_of(tmp_path, EXTERNAL))
    with pytest.raises(ConfigurationInvalid, match="need Ray and vLLM"):
        preflight.check(spec_of(tmp_path, hosted(source="hf://org/model")))


def test_certificate_is_found_beside_the_configuration(tmp_path: Path) -> None:
    tls = {"certificate": "tls/gateway.pem", "key": "/keys/gateway.key"}
    layout = layout_of(tmp_path, EXTERNAL, gateway={"tls": tls})
    found = settings_of(layout, 0).tls
    assert found is not None
    assert (found.certificate, found.key) == (
        tmp_path / "tls" / "gateway.pem",
        Path("/keys/gateway.key"),
    )
    assert gateway_url(spec_of(tmp_path, EXTERNAL, gateway={"tls": tls})).startswith("https://")


def test_engines_in_force_are_started_whatever_the_file_says(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, hosted())
    state = StateFolder(spec.state_dir)
    state.logs.mkdir(parents=True)
    assert kept_engines(state) is None
    [full] = file_engines(spec)
    int8 = full.model_copy(update={"variant": "int8", "is_baseline": False})
    write_file(state.path / IN_FORCE, EnginesInForce(engines=(full, int8)))
    engines = kept_engines(state)
    layout = lay_out(spec, tmp_path / "penumbra.yaml", state, Path("/r"), {}, engines)
    assert [variant.app for variant in layout.plan.variants] == ["demo-full", "demo-int8"]
    assert [record.variant for record in layout.variants] == ["full", "int8"]
    assert layout.required == {"demo-full"}
    first = lay_out(spec, tmp_path / "penumbra.yaml", state, Path("/r"), {})
    assert [variant.app for variant in first.plan.variants] == ["demo-full"]
