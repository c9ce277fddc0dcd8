"""Every way to be refused, and that reads go on while writes can't be done."""

from __future__ import annotations

import asyncio

import pytest

from meshd.edges.http.limits import Limits
from meshd.edges.http.problems import (
    BAD_REQUEST,
    CORRUPT,
    GONE,
    INTERNAL,
    INVALID,
    KINDS,
    NO_SPACE,
    NOT_FOUND,
    OUTCOME_UNKNOWN,
    OVERLOADED,
    UNAVAILABLE,
    Kind,
    problem_of,
)
from meshd.model.errors import (
    CompactedError,
    CorruptError,
    DeniedError,
    FatalError,
    MeshdError,
    NoSpaceError,
    NotFoundError,
    OutcomeUnknownError,
    OverloadedError,
    Problem,
    RejectedError,
    TransientError,
)
from meshd.runtime.history import GoneError
from tests.edges.http.served import Served, serve_cluster
from tests.mesh import Mesh

WEB = "/v1/services/shop/web"
PROBLEM = Problem("a", "is wrong", "mend it")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (GoneError((PROBLEM,)), GONE),
        (RejectedError((PROBLEM,)), INVALID),
        (NotFoundError("x"), NOT_FOUND),
        (OverloadedError("x", 1.2), OVERLOADED),
        (OutcomeUnknownError("x"), OUTCOME_UNKNOWN),
        (NoSpaceError("x"), NO_SPACE),
        (CorruptError("x", "y"), CORRUPT),
        (TransientError("x"), UNAVAILABLE),
        (DeniedError("x"), UNAVAILABLE),
        (CompactedError(5), UNAVAILABLE),
        (FatalError("x"), INTERNAL),
    ],
)
def test_each_class_of_errors_is_one_kind_of_problem(error: MeshdError, kind: Kind) -> None:
    problem = problem_of(error)
    assert problem.kind is kind
    assert problem.detail == str(error)
    assert problem.problems == ((PROBLEM,) if isinstance(error, RejectedError) else ())
    retry_after = {OVERLOADED: "2", UNAVAILABLE: "1"}.get(kind)
    assert problem.headers.get("Retry-After") == retry_after


def test_each_kind_has_a_name_of_its_own() -> None:
    assert len({kind.slug for kind in KINDS}) == len(KINDS)
    assert all(400 <= kind.status < 600 for kind in KINDS)
    assert BAD_REQUEST in KINDS


async def test_an_unknown_path_is_a_problem_too(east: Served) -> None:
    answer = await east.ask("GET", "/v2/nothing")
    assert (answer.status, answer.slug) == (404, "not-found")
    assert answer.json["instance"] == "/v2/nothing"


async def test_an_unknown_method_says_which_there_are(east: Served) -> None:
    answer = await east.ask("POST", WEB)
    assert (answer.status, answer.slug) == (405, "method-not-allowed")
    assert set(answer.headers["Allow"].split(",")) == {"GET", "HEAD", "PUT", "DELETE"}


@pytest.mark.parametrize(
    "path", ["/v1/services?namspace=a", "/v1/tables?perspectiv=a", WEB + "?x=", "/v1/status?a=b"]
)
async def test_an_unknown_parameter_is_not_ignored(east: Served, path: str) -> None:
    answer = await east.ask("GET", path)
    assert (answer.status, answer.slug) == (400, "bad-request")
    assert len(answer.json["problems"]) == 1


@pytest.mark.parametrize(
    ("body", "content_type", "where"),
    [
        (b'{"global":\ntru}', "application/json", "line 2"),
        (b"global: [\n", "application/yaml", "line 2"),
        (b'{"a": 1, "a": 2}', "application/json", ""),
        (b"", "application/json", "line 1"),
    ],
)
async def test_text_that_is_not_what_it_says_is_refused_with_its_line(
    east: Served, body: bytes, content_type: str, where: str
) -> None:
    answer = await east.ask("PUT", WEB, body, Content_Type=content_type)
    assert (answer.status, answer.slug) == (400, "bad-request")
    assert answer.json["problems"][0]["where"] == where


@pytest.mark.parametrize("body", [b"[]", b"[{}, {}]", b"5"])
async def test_a_put_takes_one_object(east: Served, body: bytes) -> None:
    answer = await east.ask("PUT", WEB, body)
    assert (answer.status, answer.slug) == (400, "bad-request")


async def test_a_form_is_not_understood(east: Served) -> None:
    form = "application/x-www-form-urlencoded"
    answer = await east.ask("PUT", WEB, b"global=true", Content_Type=form)
    assert (answer.status, answer.slug) == (415, "unsupported-media-type")


async def test_a_body_that_is_too_large_is_refused_and_the_server_goes_on() -> None:
    async with serve_cluster(api={"body_bytes_max": 4096}) as east:
        answer = await east.ask("PUT", WEB, b'{"source": "' + b"x" * 5000 + b'"}')
        assert (answer.status, answer.slug) == (413, "body-too-large")
        assert (await east.ask("PUT", WEB, {})).status == 200


async def test_a_body_that_does_not_arrive_is_given_up() -> None:
    async with serve_cluster(limits=Limits(body_timeout_s=0.1)) as east:
        reader, writer = await asyncio.open_connection(east.address.host, east.address.port)
        writer.write(
            f"PUT {WEB} HTTP/1.1\r\nHost: {east.address}\r\nContent-Type: application/json\r\n"
            "Content-Length: 100\r\n\r\n{".encode()
        )
        answer = await reader.readuntil(b"}")
        assert b" 408 " in answer.splitlines()[0]
        assert b"request-timeout" in answer
        writer.close()


@pytest.mark.parametrize(
    "half", [b"", b"GET /v1/status HTTP/1.1\r\nHost: x\r\nX-Slow: "], ids=["silent", "half"]
)
async def test_who_never_finishes_the_head_of_a_request_is_cut_off(half: bytes) -> None:
    limits = Limits(head_timeout_s=0.2, idle_timeout_s=0.2)
    async with (
        serve_cluster(limits=limits) as east,
        # Whoever was answered, or follows a stream, isn't meant.
        east.stream() as stream,
    ):
        assert (await east.ask("GET", "/v1/status")).status == 200
        reader, writer = await asyncio.open_connection(east.address.host, east.address.port)
        writer.write(half)
        assert await reader.read() == b""
        writer.close()
        await east.define()
        assert await stream.subjects(1) == ["shop/web"]


async def test_a_connection_on_which_nothing_is_asked_any_more_is_closed() -> None:
    async with serve_cluster(limits=Limits(idle_timeout_s=0.2)) as east:
        reader, writer = await asyncio.open_connection(east.address.host, east.address.port)
        for _ in range(2):
            writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b" 200 " in await reader.readline()
            await reader.readuntil(b"}")
        assert await reader.read() == b""
        writer.close()


async def test_an_error_that_nobody_expected_tells_nothing_of_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serve_cluster() as east:
        monkeypatch.setattr(type(east.node.peers), "conditions", _fail)
        answer = await east.ask("GET", "/v1/peers")
        assert (answer.status, answer.slug) == (500, "internal")
        assert "secret" not in answer.body.decode()
        assert (await east.ask("GET", "/v1/services")).status == 200


def _fail(_: object) -> None:
    raise ValueError("a secret of the inside")


async def test_without_its_etcd_writes_wait_then_say_so_and_reads_go_on() -> None:
    mesh = Mesh(("east",), overrides=("writer.submit_timeout_s=0.3",))
    async with serve_cluster(mesh=mesh) as east:
        await east.define()
        mesh.etcds["east"].set_up(up=False)
        answer = await east.ask("PUT", WEB, {"affinity": "local"})
        assert (answer.status, answer.slug) == (503, "unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
        applied = await east.apply("apiVersion: meshd.io/v1\nkind: Service\nmetadata: {name: a}\n")
        assert (applied.status, applied.slug) == (503, "unavailable")
        assert "portions" not in applied.json["detail"]
        assert (await east.get("/v1/tables"))["services"][0]["backends"][0]["eligible"]
        assert len((await east.get("/v1/events"))["items"]) == 3
        assert (await east.get("/readyz"))["ready"]
        status = await east.get("/v1/status")
        assert status["etcd"]["reachable"] is False
        assert status["etcd"]["reason"]
        mesh.etcds["east"].set_up(up=True)
        assert (await east.ask("PUT", WEB, {"affinity": "local"})).json["events"] == 1


async def test_an_outcome_that_is_unknown_says_so_and_is_done_once_when_repeated() -> None:
    mesh = Mesh(("east",), overrides=("writer.submit_timeout_s=0.3",))
    async with serve_cluster(mesh=mesh) as east, asyncio.TaskGroup() as tasks:
        east.meshd.kv.lose_next_reply = True
        put = tasks.create_task(east.ask("PUT", WEB, {"global": True}, Idempotency_Key="k1"))
        while east.meshd.kv.lose_next_reply:  # noqa: ASYNC110 the fake tells nobody
            await asyncio.sleep(0)
        east.meshd.kv.set_linked(linked=False)
        answer = await put
        assert (answer.status, answer.slug) == (504, "outcome-unknown")
        assert "Idempotency-Key" in answer.json["detail"]
        east.meshd.kv.set_linked(linked=True)
        again = await east.ask("PUT", WEB, {"global": True}, Idempotency_Key="k1")
        assert (again.status, again.json["repeated"]) == (200, True)
        subjects = [event["subject"] for event in (await east.get("/v1/events"))["items"]]
        assert subjects == ["east", "shop/web"]


async def test_a_full_etcd_is_said_to_be_full(east: Served) -> None:
    east.mesh.etcds["east"].is_out_of_space = True
    answer = await east.ask("PUT", WEB, {})
    assert (answer.status, answer.slug) == (507, "no-space")
    assert (await east.ask("GET", "/v1/services")).status == 200


async def test_a_full_queue_says_when_to_come_back() -> None:
    overrides = ("writer.submit_timeout_s=0.5", "writer.queue_max=1")
    mesh = Mesh(("east",), overrides=overrides)
    async with serve_cluster(mesh=mesh) as east, asyncio.TaskGroup() as tasks:
        east.meshd.kv.set_linked(linked=False)
        asked = [
            tasks.create_task(east.ask("PUT", f"/v1/services/shop/s{n}", {})) for n in range(4)
        ]
        answers = [await task for task in asked]
        slugs = {answer.slug for answer in answers}
        assert slugs == {"overloaded", "unavailable"}
        full = next(answer for answer in answers if answer.slug == "overloaded")
        assert full.status == 429
        assert int(full.headers["Retry-After"]) >= 1


async def test_a_read_that_hangs_ends_at_its_deadline() -> None:
    async with serve_cluster(limits=Limits(read_deadline_s=0.1)) as east:
        await east.define()
        east.node.projector.ring.reset(east.meshd.name)
        east.meshd.kv.range = _hang  # type: ignore[method-assign, assignment]
        answer = await east.ask("GET", "/v1/events")
        assert (answer.status, answer.slug) == (504, "deadline-exceeded")


async def test_a_write_that_hangs_may_have_been_done() -> None:
    async with serve_cluster(limits=Limits(write_deadline_s=0.1)) as east:
        east.meshd.kv.commit = _hang  # type: ignore[method-assign, assignment]
        answer = await east.ask("PUT", WEB, {})
        assert (answer.status, answer.slug) == (504, "outcome-unknown")


async def _hang(*_: object, **__: object) -> None:
    await asyncio.Event().wait()
