import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
import trustme
from aiohttp import web
from yarl import URL

from meshd.client import (
    Client,
    ClientError,
    ClientTls,
    EventChoice,
    Following,
    Notice,
    StreamEvent,
    Target,
    is_converged,
    wait_converged,
    wait_until,
)
from meshd.model.errors import Problem, RejectedError
from tests.dying import dying

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A real server that answers everything with one handler; gives its URL."""
    server = web.Server(handler, access_log=None)  # type: ignore[arg-type]
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"{'https' if context else 'http'}://{host}:{port}"
    finally:
        await runner.cleanup()


class Script:
    """Gives one answer after another, and remembers what was asked."""

    def __init__(self, *answers: Handler | web.Response) -> None:
        self.asked: list[web.Request] = []
        self.bodies: list[bytes] = []
        self._answers = list(answers)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        self.bodies.append(await request.read())
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return answer if isinstance(answer, web.Response) else await answer(request)


def ok(body: object) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps(body), content_type="application/json")

    return answer


def problem(status: int, slug: str, *, retry_after: str = "", **more: object) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        body = {
            "type": f"https://meshd.io/problems/{slug}",
            "title": "It did not work",
            "status": status,
            "detail": "the reason",
        }
        headers = {"Retry-After": retry_after} if retry_after else {}
        return web.Response(
            status=status,
            body=orjson.dumps(body | more),
            content_type="application/problem+json",
            headers=headers,
        )

    return answer


def cut(request: web.Request) -> Awaitable[web.StreamResponse]:
    """Break the connection without an answer."""

    async def answer() -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    return answer()


@asynccontextmanager
async def client_of(script: Handler, **more: Any) -> AsyncIterator[Client]:
    async with serving(script) as url, Client(Target(url=url, **more)) as client:
        yield client


async def test_every_question_goes_to_its_path() -> None:
    script = Script(ok({"items": [], "ready": True}))
    async with client_of(script) as client:
        await client.status()
        await client.clusters()
        await client.peers()
        await client.peer("west")
        await client.services()
        await client.services("shop")
        await client.service("shop", "a/b")
        await client.endpoints("shop", "web")
        await client.endpoint("shop", "web", "web.1")
        await client.tables()
        await client.tables(perspective="west", namespace="shop")
        await client.table("shop", "web", perspective="west")
        await client.events()
        await client.events(cluster="west", after=7, limit=5, kind="service.set")
        await client.put_service("shop", "web", {"global": True})
        await client.delete_service("shop", "web")
        await client.put_endpoint("shop", "web", "a", {"address": "10.0.0.1"})
        await client.delete_endpoint("shop", "web", "a")
        await client.apply(b"a: b")
        await client.apply(b"[]", dry_run=True, content_type="application/json", key="k")
    assert [f"{asked.method} {asked.raw_path}" for asked in script.asked] == [
        "GET /v1/status",
        "GET /v1/clusters",
        "GET /v1/peers",
        "GET /v1/peers/west",
        "GET /v1/services",
        "GET /v1/services?namespace=shop",
        "GET /v1/services/shop/a%2Fb",
        "GET /v1/endpoints?namespace=shop&service=web",
        "GET /v1/services/shop/web/endpoints/web.1",
        "GET /v1/tables",
        "GET /v1/tables?perspective=west&namespace=shop",
        "GET /v1/tables/shop/web?perspective=west",
        "GET /v1/events",
        "GET /v1/events?cluster=west&after=7&limit=5&type=service.set",
        "PUT /v1/services/shop/web",
        "DELETE /v1/services/shop/web",
        "PUT /v1/services/shop/web/endpoints/a",
        "DELETE /v1/services/shop/web/endpoints/a",
        "POST /v1/apply",
        "POST /v1/apply?dry_run=true",
    ]
    writes = [asked for asked in script.asked if asked.method != "GET"]
    keys = [asked.headers["Idempotency-Key"] for asked in writes]
    assert keys[-1] == "k"
    assert len(set(keys)) == len(keys)
    assert script.bodies[14] == b'{"global":true}'
    assert [asked.content_type for asked in writes[-2:]] == ["application/yaml", "application/json"]


async def test_plans_and_agreement_are_asked_for_and_never_repeated() -> None:
    script = Script(ok({}))
    async with client_of(script) as client:
        await client.verify()
        await client.plan(b"a: b", remove=("service/a/b", "endpoint/a/b/c"), perspectives=("west",))
        await client.plan(b"", remove=("service/a/b",))
    assert [f"{asked.method} {asked.raw_path}" for asked in script.asked] == [
        "GET /v1/verify",
        "POST /v1/plan?remove=service/a/b&remove=endpoint/a/b/c&perspective=west",
        "POST /v1/plan?remove=service/a/b",
    ]
    assert script.bodies[1:] == [b"a: b", b""]
    assert script.asked[1].content_type == "application/yaml"
    busy = Script(problem(503, "unavailable"))
    async with client_of(busy) as client:
        with pytest.raises(ClientError):
            await client.plan(b"a: b")
    assert len(busy.asked) == 1


async def test_token_and_actor_are_sent() -> None:
    script = Script(ok({"items": []}))
    async with client_of(script, token="s3cret", actor="me") as client:
        await client.peers()
    assert script.asked[0].headers["Authorization"] == "Bearer s3cret"
    assert script.asked[0].headers["Meshd-Actor"] == "me"


async def test_a_problem_is_told_whole() -> None:
    problems = [{"where": "line 3", "what": "is wrong", "remedy": "mend it"}, "junk", {"where": 7}]
    async with client_of(problem(422, "invalid", problems=problems)) as client:
        with pytest.raises(ClientError) as caught:
            await client.apply(b"x")
    error = caught.value
    assert (error.status, error.slug, error.title) == (422, "invalid", "It did not work")
    assert error.problems == (Problem("line 3", "is wrong", "mend it"), Problem("7", "", ""))
    assert str(error) == f"{client.url}/v1/apply: It did not work (422): the reason"
    assert not error.is_passing


@pytest.mark.parametrize(
    "answer",
    [
        web.Response(text="<html>", content_type="text/html"),
        web.Response(status=500, text="<html>", content_type="text/html"),
        web.Response(status=302, headers={"Location": "/elsewhere"}),
        web.Response(text="[]", content_type="application/json"),
        web.Response(text='{"status": "UP"}', content_type="application/json"),
    ],
    ids=["html", "error", "redirect", "list", "other"],
)
async def test_who_is_not_meshd_is_named(answer: web.Response) -> None:
    async with client_of(Script(answer)) as client:
        with pytest.raises(ClientError, match="is this meshd's address"):
            await client.peers()


async def test_nobody_there_is_known_at_once_also_when_writing(free_port: int) -> None:
    async with Client(Target(url=f"http://127.0.0.1:{free_port}", repeat_for_s=60)) as client:
        for ask in (client.status(), client.delete_service("a", "b")):
            with pytest.raises(ClientError, match="can't be reached: Connection refused") as caught:
                await ask
            assert caught.value.is_unreachable
            assert not caught.value.was_sent


async def test_a_write_that_arrived_at_who_died_of_it_may_have_been_done() -> None:
    async with (
        dying() as (address, arrived),
        Client(Target(url=f"http://{address}", repeat_for_s=0)) as client,
    ):
        with pytest.raises(ClientError, match="the connection broke") as caught:
            await client.delete_service("a", "b")
    assert caught.value.was_sent
    assert len(arrived) == 1


async def test_an_unknown_name_is_unreachable() -> None:
    async with Client(Target(url="http://nobody.invalid:1")) as client:
        with pytest.raises(ClientError, match="can't be reached: ") as caught:
            await client.status()
    assert caught.value.is_unreachable


async def test_no_answer_ends_in_time() -> None:
    async def hang(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with client_of(hang, timeout_s=0.05) as client:
        with pytest.raises(ClientError, match="did not answer in time") as caught:
            await client.status()
    assert caught.value.was_sent
    assert caught.value.is_passing


@pytest.mark.parametrize(
    "failure",
    [
        problem(503, "unavailable"),
        problem(504, "outcome-unknown"),
        problem(429, "overloaded", retry_after="0"),
        cut,
    ],
    ids=["unavailable", "unknown", "overloaded", "cut"],
)
async def test_a_write_that_may_work_is_repeated_with_the_same_key(failure: Handler) -> None:
    script = Script(failure, failure, ok({"events": 1}))
    async with client_of(script) as client:
        assert (await client.put_service("a", "b", {}))["events"] == 1
    keys = {asked.headers["Idempotency-Key"] for asked in script.asked}
    assert (len(script.asked), len(keys)) == (3, 1)


async def test_a_write_is_not_repeated_in_vain_nor_for_ever() -> None:
    script = Script(problem(422, "invalid"))
    async with client_of(script) as client:
        with pytest.raises(ClientError):
            await client.put_service("a", "b", {})
    assert len(script.asked) == 1
    script = Script(problem(503, "unavailable", retry_after="3600"))
    async with client_of(script) as client:
        with pytest.raises(ClientError) as caught:
            await client.put_service("a", "b", {})
    assert caught.value.retry_after_s == 3600
    assert len(script.asked) == 1
    script = Script(problem(503, "unavailable"))
    async with client_of(script, repeat_for_s=0) as client:
        with pytest.raises(ClientError):
            await client.put_service("a", "b", {})
    assert len(script.asked) == 1


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:7979",
        "ftp://a",
        "http://",
        "http://u:p@a",
        "http://a?x",
        "http://a#x",
        "http://a:x",
        "http://[::1",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(RejectedError, match="http://host:7979"):
        Client(Target(url=url))


async def test_a_client_must_be_entered() -> None:
    with pytest.raises(RuntimeError, match="enter"):
        await Client(Target(url="http://127.0.0.1:1")).status()


# TLS.


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def test_tls_with_a_certificate_on_both_sides(authority: trustme.CA, tmp_path: Path) -> None:
    ca, both = tmp_path / "ca.pem", tmp_path / "client.pem"
    authority.cert_pem.write_to_path(str(ca))
    authority.issue_cert("cli.example").private_key_and_cert_chain_pem.write_to_path(str(both))
    async with serving(ok({"items": []}), server_context(authority)) as url:
        async with Client(Target(url=url, tls=ClientTls(ca, both))) as client:
            assert await client.peers() == []
        async with Client(Target(url=url, tls=ClientTls(ca))) as client:
            with pytest.raises(ClientError):
                await client.peers()
        async with Client(Target(url=url)) as client:
            with pytest.raises(ClientError, match="certificate is not trusted") as caught:
                await client.peers()
            assert caught.value.is_unreachable


@pytest.mark.parametrize("name", ["nope.pem", "empty.pem"])
async def test_certificates_that_cannot_be_used_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty.pem").write_text("x")
    with pytest.raises(RejectedError, match=name):
        await Client(Target(url="https://a", tls=ClientTls(ca_file=tmp_path / name))).__aenter__()


# Streams.


def stream(*parts: bytes, then: Callable[[web.Request], None] | None = None) -> Handler:
    """An event stream that says its parts, then ends, or does what `then` does."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for part in parts:
            await response.write(part)
        if then is not None:
            then(request)
        return response

    return answer


def break_off(request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()


def event(number: int) -> bytes:
    return f'id: a:{number}\nevent: service.set\ndata: {{"n": {number}}}\n\n'.encode()


async def take(client: Client, count: int, **how: Any) -> list[StreamEvent]:
    found = []
    async with aclosing(client.follow_events(**how)) as events:
        async for one in events:
            found.append(one)
            if len(found) == count:
                break
    return found


RETRY_AT_ONCE = b"retry: 0\nid: a:0\n\n"


async def test_a_stream_that_is_cut_resumes_after_its_last_event() -> None:
    script = Script(
        stream(RETRY_AT_ONCE, event(1), event(2), event(3)[:-1], then=break_off),
        problem(503, "unavailable"),
        cut,
        stream(b"retry: 0\n\n", event(3)),
        stream(event(4)),
    )
    async with client_of(script) as client:
        found = await take(client, 4, start="beginning", clusters=("a", "b"))
    assert [one.json() for one in found] == [{"n": number} for number in (1, 2, 3, 4)]
    assert [one.id for one in found] == ["a:1", "a:2", "a:3", "a:4"]
    assert [asked.headers.get("Last-Event-ID") for asked in script.asked] == [
        None,
        "a:2",
        "a:2",
        "a:2",
        "a:3",
    ]
    assert script.asked[0].raw_path == "/v1/events?cluster=a&cluster=b&from=beginning"
    assert script.asked[1].raw_path == "/v1/events?cluster=a&cluster=b"


async def test_a_stream_that_had_no_event_yet_resumes_where_it_began() -> None:
    script = Script(stream(RETRY_AT_ONCE), stream(event(1)))
    async with client_of(script) as client:
        await take(client, 1)
    assert [asked.raw_path for asked in script.asked] == ["/v1/events?from=now", "/v1/events"]
    assert script.asked[1].headers["Last-Event-ID"] == "a:0"


async def test_a_stream_may_begin_at_a_vector() -> None:
    script = Script(stream(event(8)))
    async with client_of(script) as client:
        await take(client, 1, after="a:7")
    assert script.asked[0].headers["Last-Event-ID"] == "a:7"
    assert script.asked[0].raw_path == "/v1/events"


CHOICE = EventChoice(
    types=("service.set", "node.set"),
    namespaces=("shop",),
    services=("shop/web",),
    labels=("color=red", "tier"),
)
CHOSEN = (
    "type=service.set&type=node.set&namespace=shop&service=shop%2Fweb&label=color%3Dred&label=tier"
)


async def test_what_is_chosen_is_asked_for_on_every_connection_and_the_start_once() -> None:
    script = Script(stream(b"retry: 0\n\n", event(1)), stream(event(2)))
    following = Following(since="2026-01-31T12:05:00Z", clusters=("a",), choice=CHOICE)
    async with client_of(script) as client:
        found = await gather(client, following, 2)
    assert [one.id for one in found] == ["a:1", "a:2"]
    paths = [URL(asked.raw_path, encoded=True) for asked in script.asked]
    assert [path.query_string for path in paths] == [
        URL(f"/?cluster=a&{CHOSEN}&since=2026-01-31T12:05:00Z", encoded=True).query_string,
        URL(f"/?cluster=a&{CHOSEN}", encoded=True).query_string,
    ]


async def test_a_page_may_be_of_what_is_chosen() -> None:
    script = Script(ok({"items": [], "next": None}))
    async with client_of(script) as client:
        await client.events(cluster="a", limit=5, choice=CHOICE)
    (asked,) = script.asked
    expected = URL(f"/v1/events?cluster=a&limit=5&{CHOSEN}", encoded=True)
    assert URL(asked.raw_path, encoded=True).query == expected.query


def notice(name: str, place: str = "", data: str = "{}") -> bytes:
    return (f"id: {place}\n" if place else "").encode() + (
        f"event: {name}\ndata: {data}\n\n".encode()
    )


async def test_a_snapshot_that_was_cut_is_begun_again_and_a_reset_is_told() -> None:
    script = Script(
        stream(b"retry: 0\n", notice(Notice.SNAPSHOT_BEGIN), b"event: service.set\ndata: {}\n\n"),
        stream(notice(Notice.SNAPSHOT_BEGIN), notice(Notice.SNAPSHOT_END, "a:7"), event(8)),
        stream(
            notice(Notice.RESET), notice(Notice.SNAPSHOT_BEGIN), notice(Notice.SNAPSHOT_END, "a:9")
        ),
    )
    following = Following(start="snapshot", has_resets=True)
    async with client_of(script) as client:
        found = await gather(client, following, 8)
    assert [one.notice or one.type for one in found] == [
        *(Notice.SNAPSHOT_BEGIN, "service.set"),
        *(Notice.SNAPSHOT_BEGIN, Notice.SNAPSHOT_END, "service.set"),
        *(Notice.RESET, Notice.SNAPSHOT_BEGIN, Notice.SNAPSHOT_END),
    ]
    first = "/v1/events?reset=snapshot&from=snapshot"
    assert [asked.raw_path for asked in script.asked] == [
        *(first, first),
        "/v1/events?reset=snapshot",
    ]
    assert script.asked[2].headers["Last-Event-ID"] == "a:8"


async def gather(client: Client, following: Following, count: int) -> list[StreamEvent]:
    found: list[StreamEvent] = []
    async with aclosing(client.follow(following)) as events:
        async for one in events:
            found.append(one)
            if len(found) == count:
                break
    return found


def test_an_event_is_typed_and_a_notice_is_none() -> None:
    told = StreamEvent("a:1", "service.set", '{"specversion": "1.0", "subject": "shop/web"}')
    assert told.notice is None
    assert told.cloud_event()["subject"] == "shop/web"
    for other in (
        StreamEvent("", "meshd.reset", '{"specversion": "1.0"}'),
        StreamEvent("", "service.set", "[]"),
        StreamEvent("", "service.set", "{}"),
    ):
        with pytest.raises(ValueError, match="is no cloud event"):
            other.cloud_event()


async def test_a_silent_stream_is_given_up_and_resumed() -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        await stream(RETRY_AT_ONCE, event(1))(request)
        await asyncio.Event().wait()
        raise AssertionError

    script = Script(silent, stream(event(2)))
    async with client_of(script, silence_s=0.05) as client:
        assert len(await take(client, 2)) == 2
    assert script.asked[1].headers["Last-Event-ID"] == "a:1"


async def test_a_stream_that_is_reset_says_so() -> None:
    body = orjson.dumps({"title": "The position is of a log that no longer exists"})
    reset = stream(event(1), b"event: meshd.reset\ndata: " + body + b"\n\n")
    async with client_of(Script(reset)) as client:
        with pytest.raises(ClientError, match="no longer exists") as caught:
            await take(client, 2)
    assert caught.value.status == 410


async def test_a_stream_that_ends_in_an_error_is_resumed() -> None:
    body = orjson.dumps({"title": "It can't be done right now"})
    failed = stream(RETRY_AT_ONCE, event(1), b"event: meshd.error\ndata: " + body + b"\n\n")
    script = Script(failed, stream(event(2)))
    async with client_of(script) as client:
        assert len(await take(client, 2)) == 2
    assert script.asked[1].headers["Last-Event-ID"] == "a:1"


async def test_a_place_that_is_gone_ends_it() -> None:
    script = Script(stream(RETRY_AT_ONCE, event(1)), problem(410, "gone"))
    async with client_of(script) as client:
        with pytest.raises(ClientError) as caught:
            await take(client, 2)
    assert caught.value.slug == "gone"
    assert len(script.asked) == 2


async def test_a_first_connection_that_fails_is_told_at_once() -> None:
    for answer in (problem(503, "unavailable"), ok({})):
        script = Script(answer)
        async with client_of(script) as client:
            with pytest.raises(ClientError):
                await take(client, 1)
        assert len(script.asked) == 1


async def test_patience_ends() -> None:
    script = Script(stream(RETRY_AT_ONCE, event(1)), problem(503, "unavailable"))
    async with client_of(script) as client:
        with pytest.raises(ClientError) as caught:
            await take(client, 2, patience_s=0.05)
    assert caught.value.status == 503


async def test_what_is_no_event_ends_it() -> None:
    endless = stream(b"data: " + b"x" * (1024 * 1024 + 1))
    async with client_of(Script(endless)) as client:
        with pytest.raises(ClientError, match="sends an event of more than"):
            await take(client, 1)


# Waiting.


def status(vector: Mapping[str, int] | None = None, *, ready: bool = True) -> Any:
    vector = {"east": 1} | dict(vector or {})
    places = {name: {"log_id": "l", "seq": seq} for name, seq in vector.items()}
    return {"cluster": "east", "ready": ready, "vector": places, "peers": []}


async def test_waits_until_it_is_there_and_ready() -> None:
    script = Script(cut, problem(503, "unavailable"), ok(status(ready=False)), ok(status()))
    async with client_of(script) as client:
        assert (await client.wait_ready())["ready"]
    assert len(script.asked) == 4


async def test_a_wait_in_vain_says_what_it_saw() -> None:
    async with client_of(Script(ok(status(ready=False)))) as client:
        with pytest.raises(ClientError, match=r"in vain for http.* to be ready; last seen.*east"):
            await client.wait_ready(timeout_s=0.05)


async def test_a_wait_ends_at_once_where_waiting_does_not_help() -> None:
    script = Script(problem(401, "unauthorized"))
    async with client_of(script) as client:
        with pytest.raises(ClientError) as caught:
            await client.wait_ready()
    assert caught.value.status == 401
    assert len(script.asked) == 1


async def test_waits_for_any_condition() -> None:
    numbers = iter(range(100))

    async def ask() -> int:
        return next(numbers)

    found = await wait_until(ask, lambda n: n == 3, what="three", timeout_s=5, poll_s=0)
    assert found == 3


async def test_waits_until_clusters_agree() -> None:
    first = Script(ok(status({"a": 1})), ok(status({"a": 2})), ok(status({"a": 2})))
    second = Script(problem(503, "unavailable"), ok(status({"a": 1})), ok(status({"a": 2})))
    async with client_of(first) as one, client_of(second) as other:
        statuses = await wait_converged((one, other))
    assert [found["vector"]["a"]["seq"] for found in statuses] == [2, 2]
    async with client_of(Script(problem(401, "unauthorized"))) as client:
        with pytest.raises(ClientError) as caught:
            await wait_converged([client])
    assert caught.value.status == 401


@pytest.mark.parametrize(
    ("vectors", "agree"),
    [
        ([{"a": 1, "b": 2}, {"a": 1, "b": 2}], True),
        ([{"a": 1, "b": 2}, {"b": 2, "c": 3}], True),
        ([{"a": 1}, {"a": 2}], False),
        ([{"a": 1}, {"b": 1}, {"a": 2}], False),
        ([], False),
    ],
)
def test_agreement_is_about_what_both_follow(vectors: list[dict[str, int]], agree: bool) -> None:
    assert is_converged([status(vector) for vector in vectors]) is agree


def test_a_peer_that_is_not_known_yet_is_no_agreement() -> None:
    one, other = status({"east": 1}), status({"east": 1, "west": 1})
    other["cluster"] = "west"
    assert is_converged([one, other])
    one["peers"] = [{"name": "west"}, {"name": "south"}]
    assert not is_converged([one, other])
    assert is_converged([one])


def test_agreement_is_about_the_same_log() -> None:
    one, other = status({"a": 1}), status({"a": 1})
    other["vector"]["a"]["log_id"] = "m"
    assert not is_converged([one, other])
