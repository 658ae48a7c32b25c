from pathlib import Path

import pytest

from penumbra.deployments.config.endpoints import configuration, read_endpoints
from penumbra.deployments.config.loader import build_snapshot, load
from penumbra.deployments.config.spec import PenumbraSpec
from penumbra.deployments.errors import ConfigInvalid
from penumbra.router.flags.routing_table import Flag

EXAMPLES = Path(__file__).parents[4] / "deployments" / "examples"

GOOD = """
models:
  demo:
    baseline: full
    variants:
      full: {engine: {source: variants/full}}
      int8: {engine: {source: "hf://org/int8", autoscaling: {min: 0, max: 4}}}
      far: {url: "http://far:9000/base"}
    flag: {split: {int8: 30}}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "penumbra.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def load_text(folder: Path, text: str) -> PenumbraSpec:
    return load(write(folder, text))


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        load_text(folder, text)
    return caught.value.message


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_loads(path: Path) -> None:
    load(path)


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    spec = load_text(tmp_path, GOOD + "control: {store: 'sqlite:///db/p.db'}\nstate_dir: state\n")
    engine = spec.models["demo"].variants["full"].engine
    assert engine is not None
    assert engine.model_source == str(tmp_path / "variants" / "full")
    assert spec.state_dir == tmp_path / "state"
    assert spec.store_url == f"sqlite:///{tmp_path}/db/p.db"


def test_the_store_is_in_the_state_folder_by_default(tmp_path: Path) -> None:
    assert load_text(tmp_path, GOOD).store_url == f"sqlite:///{tmp_path}/.penumbra/penumbra.db"


def test_an_absolute_store_and_another_database_stay(tmp_path: Path) -> None:
    absolute = load_text(tmp_path, GOOD + "control: {store: 'sqlite:////var/p.db'}\n")
    assert absolute.store_url == "sqlite:////var/p.db"
    other = load_text(tmp_path, GOOD + "control: {store: 'postgresql+psycopg://db/p'}\n")
    assert other.store_url == "postgresql+psycopg://db/p"


def test_a_source_on_a_hub_is_a_name(tmp_path: Path) -> None:
    engine = load_text(tmp_path, GOOD).models["demo"].variants["int8"].engine
    assert engine is not None
    assert (engine.is_from_hub, engine.model_source, engine.bounds) == (True, "org/int8", (0, 4))


def test_the_control_url_is_one_that_can_be_connected_to(tmp_path: Path) -> None:
    assert load_text(tmp_path, GOOD + "control: {host: 0.0.0.0, port: 7}\n").control_url == (
        "http://127.0.0.1:7"
    )
    assert load_text(tmp_path, GOOD + "control: {host: '::1', port: 7}\n").control_url == (
        "http://[::1]:7"
    )


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("baseline: full", "baseline: fulll", 'baseline: found "fulll", wanted one of full, int8'),
        ("baseline: full", "baseline: 1", "models.demo.baseline: found 1, wanted text"),
        ("baseline: full", "x: 1", "models.demo.baseline: found nothing, wanted text"),
        ("    flag:", "    flags:", "models.demo.flags: found an unknown key, wanted one of base"),
        (
            "source: variants/full",
            "source: variants/full, replicas: two",
            'models.demo.variants.full.engine.replicas: found "two", wanted an integer ≥ 1',
        ),
        (
            "source: variants/full",
            "source: variants/full, replicas: 0",
            "engine.replicas: found 0, wanted an integer ≥ 1",
        ),
        (
            "source: variants/full",
            "source: variants/full, dtype: int3",
            'dtype: found "int3", wanted one of auto, bfloat16, float16, float32',
        ),
        (
            "source: variants/full",
            "source: x, replicas: 2, autoscaling: {min: 1, max: 2}",
            "found both replicas and autoscaling, wanted one of them",
        ),
        ("min: 0, max: 4", "min: 5, max: 4", "autoscaling: found min 5 over max 4"),
        (
            "source: variants/full",
            "source: x, placement: {bundles: [], strategy: SPREAD}",
            "placement.bundles: found [], wanted a list that is not empty",
        ),
        (
            "{engine: {source: variants/full}}",
            "{}",
            "variants.full: found neither engine nor url, wanted exactly one",
        ),
        (
            'url: "http://far:9000/base"',
            'url: "ftp://far"',
            'far.url: found "ftp://far", wanted http://HOST[:PORT][/PATH] or https://',
        ),
        (
            'url: "http://far:9000/base"',
            'url: "http://me:secret@far"',
            "far.url: found credentials in the URL, wanted none: name the environment variable",
        ),
        (
            'url: "http://far:9000/base"',
            'url: "http://far/v1", ca_file: ca.pem',
            "found ca_file without an https url, wanted it only with one",
        ),
        (
            "engine: {source: variants/full}",
            "engine: {source: x}, api_key_env: KEY",
            "found api_key_env with engine, wanted it only with url",
        ),
        ("int8: 30", "int9: 30", 'models.demo.flag.split: found "int9", wanted one of int8, far'),
        ("int8: 30", 'int8: "30"', 'models.demo.flag.split.int8: found "30", wanted a number'),
        ("int8: 30", "int8: 130", "flag.split.int8: found 130.0, wanted a percentage"),
        ("      far:", "      Far:", 'variants.Far: found "Far", wanted a name like'),
        ("  demo:", "  demo/kill:", "its last part none of"),
        ("  demo:", "  'de mo':", 'models.de mo: found "de mo", wanted a name'),
        (
            "    flag:",
            "    slices: [{name: a, match: {scripts: [klingon]}}]\n    flag:",
            'slices[0].match.scripts: found "klingon"',
        ),
        (
            "    flag:",
            "    slices: [{name: a, match: {route: [respones]}}]\n    flag:",
            'slices[0].match.route: found "respones", wanted one of chat, completions, responses',
        ),
        (
            "    flag:",
            "    slices: [{name: a, match: {modality: [smell]}}]\n    flag:",
            'slices[0].match.modality: found "smell", wanted one of text, image, audio',
        ),
        ("\nmodels:", "\ngateway: {host: 0.0.0.0}\nmodels:", "no keys are configured"),
        ("\nmodels:", "\ngateway: {port: 99999}\nmodels:", "wanted an integer ≥ 1 and ≤ 65535"),
        ("\nmodels:", "\nkeys: [{tenant: a}]\nmodels:", "keys[0].sha256: found nothing"),
        ("\nmodels:", "\nlimits: {idle_seconds: no}\nmodels:", "found false, wanted a number > 0"),
        (
            "      far:",
            "      full:",
            'line 8, column 7: found the key "full" a second time',
        ),
        ("  demo:", "  1:", "found the key 1, wanted text"),
        ("\nmodels:", "\nmodels: [", "line 4, column 13"),
    ],
)
def test_a_refusal_names_the_path_the_found_and_the_wanted_value(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    assert old in GOOD
    message = refusal(tmp_path, GOOD.replace(old, new))
    assert message.startswith(f"{tmp_path / 'penumbra.yaml'}: ")
    assert expected in message


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("source: variants/full", "source: 1, cpus: -1").replace("30", "many")
    assert len(refusal(tmp_path, text).splitlines()) == 3


@pytest.mark.parametrize("text", ["", "[]", "just text", "models: {}"])
def test_a_file_without_models_is_refused(tmp_path: Path, text: str) -> None:
    assert "wanted a mapping" in refusal(tmp_path, text)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="No such file"):
        load(tmp_path / "nosuch.yaml")
    (tmp_path / "penumbra.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigInvalid, match="UTF-8"):
        load(tmp_path / "penumbra.yaml")


def test_a_date_is_read_as_text(tmp_path: Path) -> None:
    assert 'found "2026-01-01", wanted' in refusal(
        tmp_path, GOOD.replace("int8: 30", "int8: 2026-01-01")
    )


def test_two_entries_for_one_key_are_refused(tmp_path: Path) -> None:
    key = f"{{tenant: a, sha256: {'0' * 64}}}"
    assert "keys[1].sha256" in refusal(tmp_path, GOOD + f"keys: [{key}, {key}]\n")


def test_build_snapshot_prefers_flags_in_force_and_asks_only_for_hosted_variants(
    tmp_path: Path,
) -> None:
    spec = load_text(tmp_path, GOOD)
    asked = []

    def base_url_of(name: str, variant: str) -> str:
        asked.append(variant)
        return f"http://ray/{name}-{variant}"

    table = build_snapshot(spec, {}, 3, base_url_of)
    assert table.epoch == 3
    assert table.models["demo"].flag.split == {"int8": 30}
    assert table.models["demo"].variants["far"].url == "http://far:9000/base"
    assert table.models["demo"].variants["int8"].url == "http://ray/demo-int8"
    assert asked == ["full", "int8"]
    stored = build_snapshot(spec, {"demo": Flag(killed=True)}, 4, base_url_of)
    assert stored.models["demo"].flag == Flag(killed=True)


def test_a_hosted_variant_without_an_address_is_named(tmp_path: Path) -> None:
    spec = load_text(tmp_path, GOOD)
    with pytest.raises(ConfigInvalid, match=r"e\.json: demo\.int8: found nothing"):
        configuration(spec, {"demo": {"full": "http://x"}}, "e.json")


def test_endpoints_are_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.json"
    path.write_text('{"demo": {"full": "http://x"}}', encoding="utf-8")
    assert read_endpoints(path) == {"demo": {"full": "http://x"}}
    assert read_endpoints(None) == {}
    path.write_text('{"demo": 1}', encoding="utf-8")
    with pytest.raises(ConfigInvalid, match="base URL"):
        read_endpoints(path)
    with pytest.raises(ConfigInvalid, match="No such file"):
        read_endpoints(tmp_path / "nosuch.json")


def test_sticky_headers_of_a_model_are_in_the_routing_table(tmp_path: Path) -> None:
    sticky = "    sticky_headers: [x-openwebui-user-id, x-chat-user]\n    baseline:"
    spec = load_text(tmp_path, GOOD.replace("    baseline:", sticky))
    table = build_snapshot(spec, {}, 1, lambda _model, _variant: "http://ray")
    assert table.models["demo"].sticky_headers == ("x-openwebui-user-id", "x-chat-user")


@pytest.mark.parametrize("name", ["X-OpenWebUI-User-Id", "x user", "", "x.user"])
def test_a_sticky_header_is_a_header_name_in_lower_case(tmp_path: Path, name: str) -> None:
    sticky = f'    sticky_headers: ["{name}"]\n    baseline:'
    message = refusal(tmp_path, GOOD.replace("    baseline:", sticky))
    assert "models.demo.sticky_headers[0]" in message
    assert "wanted a header name in lower case" in message


def test_a_limit_below_the_number_of_gateway_processes_names_both(tmp_path: Path) -> None:
    keys = "keys: [{tenant: t, sha256: '" + "0" * 64 + "', limits: {LIMIT: 3}}]\n"
    for limit in ("concurrency", "requests_per_minute"):
        text = GOOD + keys.replace("LIMIT", limit) + "gateway: {processes: "
        load_text(tmp_path, text + "3}\n")
        assert f"keys[0].limits.{limit}: found 3 with 4 gateway processes, wanted at least 4" in (
            refusal(tmp_path, text + "4}\n")
        )
