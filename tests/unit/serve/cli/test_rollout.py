"""`penumbra rollout` on an admin API in memory: what it asks, what it prints, how it ends."""

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from penumbra.serve.cli import options, rollout_watch
from penumbra.serve.cli.admin_client import AdminClient
from penumbra.serve.cli.rollout import app
from tests.support import rollout_answers as answers

Answer = tuple[int, dict[str, Any]]


class Api:
    """An admin API that answers as it is told, in turn; the last answer again and again."""

    def __init__(self) -> None:
        self.answers: list[Answer | httpx.HTTPError] = []
        self.requests: list[httpx.Request] = []

    def says(self, *bodies: dict[str, Any] | httpx.HTTPError, status: int = 200) -> None:
        self.answers = [
            body if isinstance(body, httpx.HTTPError) else (status, body) for body in bodies
        ]

    def refuses(self, status: int, code: str, message: str) -> None:
        self.says({"error": {"code": code, "message": message}}, status=status)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, httpx.HTTPError):
            raise answer
        return httpx.Response(answer[0], json=answer[1])

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, arguments, env={"COLUMNS": "160"})


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    api = Api()

    def connect(url: str | None, config: Path | None = None) -> AdminClient:
        del config
        return AdminClient(url or "http://control", "token", "ann")

    made = functools.partial(httpx.Client, transport=httpx.MockTransport(api))
    monkeypatch.setattr(httpx, "Client", made)
    monkeypatch.setattr(options, "connect", connect)
    monkeypatch.setattr(rollout_watch, "PERIOD_SECONDS", 0.0)
    return api


@pytest.fixture
def rollout_file(tmp_path: Path) -> Path:
    file = tmp_path / "rollout.yaml"
    file.write_text("model: demo\ncandidate: int8\nstages: [shadow, 5, 100]\n")
    return file


def flag(**changes: Any) -> dict[str, Any]:
    """The flag of a model, as the admin API shows it."""
    plain: dict[str, Any] = {
        "killed": False, "blocked": [], "quarantined": [], "pins": [], "rules": [], "split": {},
    }  # fmt: skip
    return {"model": "demo", "flag": plain | changes}


DONE = "epoch 7 durable, live on 2/2 gateways after 3.2 ms"


def change(**more: Any) -> dict[str, Any]:
    rollout = answers.summary(**more).model_dump(mode="json")
    gateways = {"connected": 2, "acknowledged": 2}
    return {
        "epoch": 7,
        "changed": True,
        "gateways": gateways,
        "propagation_ms": 3.21,
        "rollout": rollout,
    }


def test_apply_sends_the_whole_spec_and_the_reason(api: Api, rollout_file: Path) -> None:
    api.says(flag(), {"rollouts": []}, change())
    done = api.run("apply", "-f", str(rollout_file), "--reason", "try it")
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{DONE}: int8 of demo is shadow\n"
    request = api.requests[-1]
    assert done.stderr == ""
    assert (request.method, request.url.path) == ("PUT", "/admin/v1/rollouts")
    assert request.headers["x-penumbra-actor"] == "ann"
    body = json.loads(request.content)
    assert body["reason"] == "try it"
    assert body["spec"]["stages"] == ["shadow", 5.0, 100.0]
    assert body["spec"]["alpha"] == 0.01


def test_apply_of_a_wrong_file_names_the_place_and_sends_nothing(
    api: Api, rollout_file: Path
) -> None:
    rollout_file.write_text("model: demo\ncandidate: int8\ngates: {pears: 3}\n")
    done = api.run("apply", "-f", str(rollout_file), "--reason", "x")
    assert done.exit_code == 2
    assert f"{rollout_file}: gates.pears: found an unknown key, wanted one of pairs" in done.stderr
    assert api.requests == []


def test_apply_says_first_what_becomes_of_what_was_set_by_hand(
    api: Api, rollout_file: Path
) -> None:
    rule = {"name": "beta", "variant": None, "split": {"int8": 50.0}}
    pins = [{"kind": "tenant", "subject": "acme", "variant": "int8"}]
    by_hand = flag(
        split={"int8": 30.0, "int4": 20.0}, blocked=["int8"], pins=pins, rules=[rule], killed=True
    )
    api.says(by_hand, {"rollouts": []}, change())
    done = api.run("apply", "-f", str(rollout_file), "--reason", "try it")
    assert done.exit_code == 0, done.output
    assert "int8 has 30 % by hand: that ends now" in done.stderr
    assert "int8 is blocked: the block ends" in done.stderr
    assert "a pin of tenant acme, the rule beta" in done.stderr
    assert "int4 20 % by hand stays" in done.stderr
    assert "demo is killed" in done.stderr


def test_apply_over_a_running_rollout_takes_nothing_that_was_set_by_hand(
    api: Api, rollout_file: Path
) -> None:
    running = {"model": "demo", "candidate": "int8", "stage": "25"}
    api.says(flag(split={"int8": 25.0}), {"rollouts": [running]}, change())
    done = api.run("apply", "-f", str(rollout_file), "--reason", "again")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("status", "code", "exit_status"),
    [(409, "conflict", 1), (404, "not_found", 1), (401, "unauthorized", 5), (403, "forbidden", 5)],
)
def test_an_error_as_json_is_json_on_standard_output(
    api: Api, status: int, code: str, exit_status: int
) -> None:
    api.refuses(status, code, "because")
    done = api.run("rollback", "demo", "int8", "--reason", "x", "--json")
    assert done.exit_code == exit_status
    error = {"message": f"because ({code})", "code": code, "exit_status": exit_status}
    assert json.loads(done.stdout) == {"error": error}
    assert done.stderr == ""


@pytest.mark.parametrize("verb", ["promote", "hold", "resume", "rollback", "rearm", "end"])
def test_verb_names_the_rollout_and_the_reason(api: Api, verb: str) -> None:
    api.says(change())
    done = api.run(verb, "org/demo", "int8", "--reason", "because")
    assert done.exit_code == 0, done.output
    [request] = api.requests
    assert (request.method, request.url.path) == ("POST", f"/admin/v1/rollouts/int8/{verb}")
    assert request.url.params["model"] == "org/demo"
    assert json.loads(request.content) == {"reason": "because"}


def test_verb_without_a_reason_is_a_usage_error(api: Api) -> None:
    assert api.run("rollback", "demo", "int8").exit_code == 2


def test_verb_that_changes_nothing_says_so(api: Api) -> None:
    api.says({**change(), "changed": False})
    done = api.run("hold", "demo", "int8", "--reason", "x")
    assert done.stdout == "nothing to change: epoch 7 says so already\n"


def test_verb_tells_of_a_hold(api: Api) -> None:
    api.says(change(stage="25", is_held=True, held_cause="weekend"))
    done = api.run("hold", "demo", "int8", "--reason", "weekend")
    assert done.stdout == f"{DONE}: int8 of demo is 25 % (held: weekend)\n"


def test_verb_tells_how_many_gateways_have_it(api: Api) -> None:
    api.says(
        {
            **change(stage="rolled_back"),
            "gateways": {"connected": 2, "acknowledged": 1},
            "propagation_ms": None,
        }
    )
    done = api.run("rollback", "demo", "int8", "--reason", "bad")
    assert "epoch 7 durable, live on 1/2 gateways so far" in done.stdout


def test_refusal_is_one_line_and_exit_status_1(api: Api) -> None:
    api.refuses(404, "not_found", "found no rollout of int9, wanted one of int8")
    done = api.run("rollback", "demo", "int9", "--reason", "x")
    assert done.exit_code == 1
    assert done.stderr == "error: found no rollout of int9, wanted one of int8 (not_found)\n"


def test_status_lists_and_narrows_to_a_model(api: Api) -> None:
    rollouts = [answers.summary(), answers.summary(model="chat", candidate="fp8", stage="25")]
    api.says({"epoch": 7, "rollouts": [rollout.model_dump(mode="json") for rollout in rollouts]})
    everything = api.run("status").stdout
    assert "int8" in everything
    assert "25 %" in everything
    narrowed = api.run("status", "chat").stdout
    assert "fp8" in narrowed
    assert "demo" not in narrowed
    missing = api.run("status", "nosuch")
    assert missing.exit_code == 1
    assert "found no rollout of nosuch, wanted one of: demo, chat" in missing.stderr


def test_status_of_nothing_says_how_to_begin(api: Api) -> None:
    api.says({"epoch": 1, "rollouts": []})
    assert "penumbra rollout apply" in api.run("status").stdout


def test_status_of_one_shows_evidence_by_slice_and_what_it_waits_for(api: Api) -> None:
    api.says(answers.view())
    text = api.run("status", "demo", "int8").stdout
    assert "[shadow] → 1 % → 5 %" in text
    assert "evidence against it 12.4 of 333.3" in text
    assert re.search(r"sort +40 +0\.0010 +0\.0000 to 0\.0200 +0\.0050 .* yes", text)
    assert re.search(r"facts .* no", text)
    assert "nothing observed: other" in text
    assert "waits for slices: proven: sort, wanted proven: facts, sort" in text
    assert "waits for pairs" not in text
    assert "shed age 3" in text


def test_status_shows_a_hold_and_a_broken_instrument(api: Api) -> None:
    api.says(answers.view(is_held=True, held_cause="[weekend]", frozen_cause="self-test failed"))
    text = api.run("status", "demo", "int8").stdout
    assert "[weekend]" in text
    assert "self-test failed" in text


def test_status_says_what_a_verdict_waits_for(api: Api) -> None:
    told = "the baseline is compared with itself in harm (facts): 12 pairs so far"
    api.says(answers.view(stage="rolled_back", verdict="fail", verdict_awaits=told))
    text = api.run("status", "demo", "int8").stdout
    assert "not final" in text
    assert "12 pairs so far" in text


def test_status_shows_proofs_of_another_workload(api: Api) -> None:
    stale = {"facts": "script: han 60% of the latest 300 pairs, was 2%", "*": "slices: json 40%"}
    api.says(answers.view(stage="promoted", stale=stale))
    text = " ".join(api.run("status", "demo", "int8").stdout.split())
    assert "promoted (stale)" in text
    assert "facts: proven on another workload: script: han 60%" in text
    assert "all slices: proven on another workload" in text


def test_status_of_an_older_control_process_knows_no_stale_proofs(api: Api) -> None:
    view = answers.view()
    del view["stale"], view["workload"]
    api.says(view)
    assert api.run("status", "demo", "int8").exit_code == 0


def test_status_shows_in_what_the_builds_differ(api: Api) -> None:
    full = {"weights": "a" * 64, "kv_cache_dtype": "auto", "vllm": "0.32.0"}
    int8 = full | {"weights": "b" * 64, "kv_cache_dtype": "fp8"}
    api.says(answers.view(builds={"full": full, "int8": int8}))
    text = api.run("status", "demo", "int8").stdout
    assert "kv_cache_dtype fp8 (baseline auto), weights" in text
    assert "vllm" not in text


def test_json_is_what_the_api_said(api: Api) -> None:
    api.says(answers.view())
    assert json.loads(api.run("status", "demo", "int8", "--json").stdout) == answers.view()


def test_watch_prints_a_line_for_every_change_and_ends_promoted(api: Api) -> None:
    first, later = answers.view(), answers.view(pairs=99)
    proven = answers.view(proven=["sort", "facts"], verdict="pass", cause="within tolerance: facts")
    live = answers.view(stage="1", cause="stage shadow → 1")
    end = answers.view(stage="promoted", cause="through all stages")
    api.says(first, first, later, proven, proven, live, end)
    done = api.run("watch", "demo", "int8")
    assert done.exit_code == 0, done.output
    lines = [line.partition("] ")[2] for line in done.stdout.splitlines()]
    assert [line.partition(";")[0] for line in lines] == [
        "int8: shadow",
        "int8: shadow",
        "int8: 1 %",
        "int8: promoted",
    ]
    assert "within tolerance: facts" in lines[1]


def test_watch_ends_with_3_when_the_guard_rolled_back_and_says_why(api: Api) -> None:
    api.says(answers.view(), answers.view(), answers.rolled_back())
    done = api.run("watch", "demo", "int8")
    assert done.exit_code == 3
    assert "displacement: evidence 342 reached 333.3; facts" in done.stdout
    assert "9.8 ms in all" in done.stdout


def test_watch_waits_for_the_last_acknowledgement_before_it_tells_of_a_rollback(api: Api) -> None:
    early = answers.rolled_back()
    early["last_rollback"]["durable_to_acknowledged_ms"] = None
    api.says(answers.view(), early, early, answers.rolled_back())
    done = api.run("watch", "demo", "int8")
    assert done.exit_code == 3
    assert "9.8 ms in all" in done.stdout
    assert "not every gateway" not in done.stdout


def test_watch_does_not_wait_long_for_a_gateway_that_is_silent(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout_watch, "ACKNOWLEDGE_SECONDS", 0.0)
    early = answers.rolled_back()
    early["last_rollback"]["durable_to_acknowledged_ms"] = None
    api.says(answers.view(), early)
    assert "not every gateway has acknowledged" in api.run("watch", "demo", "int8").stdout


@pytest.mark.parametrize(
    ("until", "stage", "code"),
    [
        ("25", "25", 0),
        ("25%", "25", 0),
        ("5", "25", 0),
        ("shadow", "promoted", 0),
        ("promoted", "off", 3),
        ("rolled_back", "rolled_back", 0),
        ("25", "rolled_back", 3),
    ],
)
def test_watch_until_a_stage(api: Api, until: str, stage: str, code: int) -> None:
    api.says(answers.view(stage=stage))
    assert api.run("watch", "demo", "int8", "--until", until).exit_code == code


def test_watch_until_an_unknown_stage_is_refused(api: Api) -> None:
    api.says(answers.view())
    done = api.run("watch", "demo", "int8", "--until", "30")
    assert done.exit_code == 2
    assert '--until: found "30", wanted one of shadow, 1, 5, 25, 50, 100, promoted' in done.stderr


def test_watch_ends_with_6_when_it_takes_too_long(api: Api) -> None:
    api.says(answers.view())
    assert api.run("watch", "demo", "int8", "--timeout", "0").exit_code == 6


def test_watch_survives_a_control_process_that_restarts(api: Api) -> None:
    gone = httpx.ConnectError("refused")
    api.says(answers.view(), answers.view(), gone, gone, answers.view(stage="promoted"))
    done = api.run("watch", "demo", "int8")
    assert done.exit_code == 0
    assert done.stderr.count("no answer from the control process") == 1


def test_watch_as_json_is_an_object_a_line(api: Api) -> None:
    api.says(answers.view(), answers.view(), answers.view(stage="promoted"))
    done = api.run("watch", "demo", "int8", "--json")
    stages = [json.loads(line)["stage"] for line in done.stdout.splitlines()]
    assert stages == ["shadow", "promoted"]


def test_explain_draws_the_path_and_names_the_culprits(api: Api) -> None:
    api.says(answers.explained())
    done = api.run("explain", "demo", "int2")
    assert done.exit_code == 0, done.output
    assert api.requests[0].url.path == "/admin/v1/rollouts/int2/explain"
    assert "guard rolled back int2 of demo" in done.stdout
    assert "37 mirrored requests" in done.stdout
    assert "333.3 ┤╌" in done.stdout
    assert "Culprit slices: facts" in done.stdout
    assert re.search(r"req-1 +facts +0\.1301 +1 +length", done.stdout)
    assert "9.8 ms in all" in done.stdout
    assert "same verdict (342)" in done.stdout


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"is_reproduced": False, "recomputed_verdict": "pass"}, "NOT what was decided"),
        (
            {"is_reproduced": None, "signal": None, "boundary": None, "path": [], "times": None},
            "Decided by a person",
        ),
        ({"culprits": []}, "most evidence: facts"),
        ({"action": "quarantine"}, "quarantined slices of int2"),
    ],
)
def test_explain_says_what_it_does_not_know(api: Api, more: dict[str, Any], words: str) -> None:
    api.says(answers.explained(**more))
    done = api.run("explain", "demo", "int2")
    assert done.exit_code == 0, done.output
    assert words in done.stdout


@pytest.mark.parametrize("arguments", [("watch", "demo", "int8"), ("status",)])
def test_silent_control_process_is_named(api: Api, arguments: tuple[str, ...]) -> None:
    api.says(httpx.ConnectError("refused"))
    done = api.run(*arguments)
    assert done.exit_code == 4
    assert "no answer from the control process at http://control" in done.stderr


def test_every_view_can_be_shown_on_a_narrow_terminal(api: Api) -> None:
    shown: list[tuple[Callable[[], dict[str, Any]], tuple[str, ...]]] = [
        (answers.rolled_back, ("status", "demo", "int8")),
        (answers.explained, ("explain", "demo", "int2")),
    ]
    for make, arguments in shown:
        api.says(make())
        done = CliRunner().invoke(app, arguments, env={"COLUMNS": "70"})
        assert done.exit_code == 0, done.output


def test_status_shows_the_scope_and_alpha_where_candidates_share_it(api: Api) -> None:
    told = {"scope": "slices code", "guard_alpha": 0.01, "model_alpha": 0.02}
    api.says(answers.view(**told))
    done = api.run("status", "demo", "int8")
    assert "0 % of the slices that are not kept back, only slices code" in done.stdout
    text = " ".join(done.stdout.split())
    assert "of this candidate: at most 0.01; of any candidate of demo under guard: at most" in text
    api.says(
        {"epoch": 7, "rollouts": [answers.summary(scope="slices code").model_dump(mode="json")]}
    )
    assert "0 % of slices code" in " ".join(api.run("status").stdout.split())


def test_apply_says_what_other_candidates_keep_and_what_the_scope_leaves_out(
    api: Api, rollout_file: Path
) -> None:
    rollout_file.write_text(rollout_file.read_text() + "scope: {slices: [code]}\n")
    other = answers.summary(candidate="int4", stage="20", share=20.0).model_dump(mode="json")
    closed = {"int8": ["code"], "int4": ["facts"]}
    by_hand = flag(split={"int4": 20.0}, quarantined_for=closed)
    api.says(by_hand, {"rollouts": [other]}, change())
    done = api.run("apply", "-f", str(rollout_file), "--reason", "x")
    assert "only slices code: other requests are not compared" in done.stderr
    assert "int4 20 % by its rollout stays" in done.stderr
    assert "int8 is quarantined in code by hand: the rollout decides that now" in done.stderr
    assert "int4 is quarantined" not in done.stderr
