"""The control process behind TLS: clients verify it, and links show certificates of their own."""

import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from penumbra.serve.cli.flags import app as flags
from tests.support.certificates import Authority
from tests.support.control_process import ADMIN, GATEWAY, VIEWER, ControlProcess
from tests.support.gateway_process import GatewayProcess, eventually
from tests.support.raw_client import RawClient, request_bytes

HERE = "IP:127.0.0.1"


class LinkedLater(GatewayProcess):
    """A gateway that is not waited for: it is ready once it has a table."""

    def wait_until_ready(self) -> None:
        pass


class Site:
    """The certificates of one installation.

    Args:
        folder: Where they lie.
    """

    def __init__(self, folder: Path) -> None:
        for name in ("own", "foreign"):
            (folder / name).mkdir()
        self.authority, self.foreign = Authority(folder / "own"), Authority(folder / "foreign")
        self.certificate, self.key = self.authority.sign("control", HERE)
        self.client = self.authority.sign("gateway", "DNS:gateway")

    @property
    def tls(self) -> dict[str, Any]:
        return {"certificate": str(self.certificate), "key": str(self.key)}

    @property
    def shown(self) -> dict[str, str]:
        return {"certificate": str(self.client[0]), "key": str(self.client[1])}

    def control(self, folder: Path, *, shows: bool = False, **more: Any) -> ControlProcess:
        context = self.authority.client_context(*(self.client if shows else ()))
        settings = {"tls": self.tls | more, "lease_seconds": 2.0}
        return ControlProcess(folder, settings=settings, tls=context)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def linked(control: ControlProcess) -> int:
    return len(control.get("/gateways")["gateways"])


def gateway(folder: Path, control: ControlProcess, **tls: str) -> GatewayProcess:
    settings = {
        "control_url": control.url,
        "control_tls": tls,
        "snapshot": {"epoch": 0, "models": {}},
    }
    return LinkedLater(settings, folder, {"PENUMBRA_GATEWAY_TOKEN": GATEWAY})


@pytest.fixture
def control(site: Site, tmp_path: Path) -> Iterator[ControlProcess]:
    with site.control(tmp_path) as process:
        yield process


def status_of(control: ControlProcess, verify: ssl.SSLContext) -> int:
    shown = {"authorization": f"Bearer {VIEWER}"}
    return httpx.get(f"{control.url}/admin/v1/flags", headers=shown, verify=verify).status_code


def test_commands_and_links_verify_the_control_process(
    site: Site, control: ControlProcess, tmp_path: Path
) -> None:
    with gateway(tmp_path, control, ca_file=str(site.authority.ca_file)) as process:
        eventually(lambda: linked(control) == 1, what="the link")
        assert process.get("/ready").status == 200
    asked = {"PENUMBRA_ADMIN_TOKEN": ADMIN, "PENUMBRA_ADMIN_URL": control.url}

    def ask(ca_file: Path) -> tuple[int, str]:
        environment = asked | {"PENUMBRA_CONTROL_CA_FILE": str(ca_file)}
        result = CliRunner().invoke(flags, ("kill", "demo", "-m", "x"), env=environment)
        return result.exit_code, result.output

    assert ask(site.authority.ca_file)[0] == 0
    assert ask(site.foreign.ca_file)[0] == 4
    status, told = ask(tmp_path / "none.pem")
    assert status == 2
    assert "none.pem" in told
    by_file = CliRunner().invoke(flags, ("list", "-f", str(control.config)), env=asked)
    assert by_file.exit_code == 4  # the file names no authority
    text = control.config.read_text()
    control.config.write_text(
        text.replace("control:\n", f"control:\n  ca_file: {site.authority.ca_file}\n")
    )
    by_file = CliRunner().invoke(flags, ("list", "-f", str(control.config)), env=asked)
    assert by_file.exit_code == 0, by_file.output


def test_gateway_refuses_a_control_process_of_another_authority(
    site: Site, control: ControlProcess, tmp_path: Path
) -> None:
    with gateway(tmp_path, control, ca_file=str(site.foreign.ca_file)) as process:
        eventually(
            lambda: "CERTIFICATE_VERIFY_FAILED" in process.log_text(), what="the link's refusal"
        )
        assert linked(control) == 0


def test_plain_http_is_not_answered(control: ControlProcess) -> None:
    with RawClient(control.port) as plain:
        plain.send(request_bytes("/health", method="GET"))
        assert plain.is_closed() or plain.read_to_eof()[:5] != b"HTTP/"


def test_metrics_are_found_and_merged_over_tls(control: ControlProcess, site: Site) -> None:
    context = site.authority.client_context()
    targets = httpx.get(f"{control.url}/metrics/targets", verify=context).json()
    [own] = [each for each in targets if each["labels"]["process_kind"] == "control"]
    assert own["labels"]["__scheme__"] == "https"
    page = httpx.get(f"{control.url}/metrics/all", verify=context).text
    assert 'penumbra_process_up{process="control",process_kind="control"} 1.0' in page


@pytest.mark.timeout(120)
def test_renewed_certificate_is_shown_and_one_of_no_use_changes_nothing(
    site: Site, control: ControlProcess
) -> None:
    before = site.certificate.read_bytes()
    site.certificate.write_bytes(b"not a certificate\n")
    eventually(lambda: "certificate_unusable" in control.log_text(), timeout=20.0, what="the look")
    assert status_of(control, site.authority.client_context()) == 200
    certificate, key = site.foreign.sign("control", HERE)
    shutil.copy(key, site.key)
    shutil.copy(certificate, site.certificate)
    assert site.certificate.read_bytes() != before
    eventually(
        lambda: "certificate_renewed" in control.log_text(), timeout=20.0, what="the renewal"
    )
    assert status_of(control, site.foreign.client_context()) == 200


def test_links_need_a_certificate_and_operators_do_not(site: Site, tmp_path: Path) -> None:
    authority = str(site.authority.ca_file)
    with site.control(tmp_path, client_ca=authority) as control:
        assert control.post("/flags/demo/kill", {}).status_code == 200
        with gateway(tmp_path, control, ca_file=authority):
            eventually(lambda: "no_certificate" in control.log_text(), what="the refusal")
            assert linked(control) == 0
        with gateway(tmp_path, control, ca_file=authority, **site.shown):
            eventually(lambda: linked(control) == 1, what="the link")
        foreign = site.authority.client_context(*site.foreign.sign("thief", "DNS:thief"))
        with pytest.raises(httpx.TransportError):  # a wrong one is worse than none
            status_of(control, foreign)


def test_all_clients_need_a_certificate_where_that_is_set(site: Site, tmp_path: Path) -> None:
    authority = str(site.authority.ca_file)
    more = {"client_ca": authority, "require_client_certificate": "all"}
    with site.control(tmp_path, shows=True, **more) as control:
        assert control.post("/flags/demo/kill", {}).status_code == 200
        with pytest.raises(httpx.TransportError):
            status_of(control, site.authority.client_context())


def test_start_without_usable_files_says_which(site: Site, tmp_path: Path) -> None:
    site.certificate.write_text("nothing")
    done = site.control(tmp_path).run()
    assert done.returncode == 2
    assert f"control.tls: found {site.certificate}" in done.stderr
