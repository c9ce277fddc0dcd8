"""openapi.json: every path, its parameters, its answers and its problems.

For: what `meshd.edges.http` serves, for people and generators. Not for: shapes (`openapi_schemas`).
Invariant: tests hold routes, answers and this description against each other.
"""

from __future__ import annotations

from openapi_schemas import COUNT, FLAG, TEXT, VECTOR, Json, many, ref, schemas, words

from meshd import __version__
from meshd.core import trail
from meshd.core.slots import SLOTS_SIZES
from meshd.edges.http.logs import ARCHIVE_TYPE
from meshd.edges.http.past import LIMIT_DEFAULT, LIMIT_MAX
from meshd.edges.http.problems import (
    BAD_REQUEST,
    BODY_TOO_LARGE,
    CONFLICT,
    CORRUPT,
    DEADLINE,
    FORBIDDEN,
    GONE,
    INTERNAL,
    INVALID,
    KINDS,
    MEDIA_TYPE,
    MISDIRECTED,
    NO_SPACE,
    NOT_FOUND,
    OUTCOME_UNKNOWN,
    OVERLOADED,
    REQUEST_TIMEOUT,
    TYPE_BASE,
    UNAUTHORIZED,
    UNAVAILABLE,
    Kind,
)
from meshd.edges.http.requests import ACTOR_CHARS_MAX, IDEMPOTENCY_KEY_CHARS_MAX
from meshd.edges.http.watching import EVERY_S_DEFAULT, EVERY_S_MAX
from meshd.model.service import Transport
from meshd.runtime.trails import SCAN_BYTES_MAX, SCAN_SEQS_MAX

JSON_TYPE = "application/json"
YAML_TYPE = "application/yaml"
READ_KINDS = (BAD_REQUEST, UNAUTHORIZED, MISDIRECTED, INTERNAL, UNAVAILABLE, DEADLINE)
WRITE_KINDS = (
    BAD_REQUEST,
    UNAUTHORIZED,
    FORBIDDEN,
    REQUEST_TIMEOUT,
    BODY_TOO_LARGE,
    MEDIA_TYPE,
    MISDIRECTED,
    INVALID,
    OVERLOADED,
    INTERNAL,
    UNAVAILABLE,
    OUTCOME_UNKNOWN,
    NO_SPACE,
)
PAST_KINDS = (INVALID, GONE, OVERLOADED, CORRUPT)
"""What asking for an earlier state may come to."""
TAGS_CHARS_MAX = 8190
"""aiohttp's own limit of a header's line; a tag has 34."""
NAMES = (
    *("namespace", "service", "endpoint", "cluster", "node", "number", "policy"),
    *("kind", "name", "operation"),
)
MANIFESTS = """\
apiVersion: meshd.io/v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {global: true, affinity: local, ports: [{port: 80, name: http}]}
---
apiVersion: meshd.io/v1
kind: Endpoints
metadata: {name: web, namespace: shop}
spec: {endpoints: [{address: 10.1.0.1}, {address: 10.1.0.2, weight: 50}]}
"""
STREAM = (
    "With `Accept: text/event-stream` a stream of server-sent events instead: `id` is a place in"
    " every followed log (bring it back as Last-Event-ID to resume exactly), `event` the"
    " event's type without prefix, `data` a CloudEvent. The first frame has an id and no data: it"
    " resumes a stream that broke before its first event; more of them may come, where a filter"
    " lets nothing else through. A comment comes every 15 s. With `from=snapshot` everything that"
    " exists comes first, each thing as its last event, between `meshd.snapshot.begin` and"
    " `meshd.snapshot.end`; only the latter has an id, so a snapshot that was cut begins anew."
    " `meshd.reset` says that the place is gone, since a log was replaced or cut: begin with a"
    " snapshot, or read /v1/tables and follow from its events_after. With `reset=snapshot` the"
    " snapshot follows in the same stream. `meshd.error` says that the stream ends and can be"
    " resumed. The data of both is a Problem, and neither has an id. With `Upgrade: websocket` the"
    ' same messages come as texts, each `{"id": …, "event": …, "data": …}` with null for what'
    " it hasn't got; pings show life; the close code is 1001 when meshd stops, else 4000 and the"
    " status of the Problem that came last. A client sends nothing. Conditions are joined by AND,"
    " values of one by OR, labels by AND."
)


TABLE_STREAM = (
    "Server-sent events, without end. First a snapshot: `meshd.snapshot.begin`, a `meshd.table` for"
    " each service (as in /v1/tables, and `change`, the number of its last change),"
    " `meshd.snapshot.end`. Then `meshd.table` for each service that changed, as it is by then, or"
    " with `delta=true` `meshd.table.delta`, what became of it; `meshd.table.removed` for one that"
    " is gone or matches no longer. Messages that belong together come together, and the last of"
    " them has an `id`: bring it back as Last-Event-ID with the same filters to go on behind it. A"
    " place that can't be gone on from is answered with 410, or with `reset=snapshot` with"
    " `meshd.reset` and a snapshot. `meshd.error` says that the stream ends and can be resumed. The"
    " data of both is a Problem. The messages' fields are in protocols/streams.md."
)

WATCH = (
    "Server-sent events, without end. First `meshd.mesh`, all of it: `status` and `peers`. Then"
    " `meshd.peer`, as in /v1/peers, when its phase, trouble, standing or link is another;"
    " `meshd.peer.removed`; `meshd.status` when leadership or readiness is another. Where only"
    " numbers change, such as lag, vector and digest, they come at most once in `every_s`. It is a"
    " condition and no history: no message has an id, and a Last-Event-ID is answered with all of"
    " it anew. The messages' fields are in protocols/streams.md."
)


def document() -> Json:
    """The whole description."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "meshd",
            "version": __version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "The control plane of one cluster in a mesh of clusters. Fields and"
            " event types may be added within a version: ignore those that you don't know.",
        },
        "servers": [{"url": "http://127.0.0.1:7979"}],
        "security": [{"token": []}, {}],
        "paths": _services()
        | _endpoints()
        | _registrations()
        | _things()
        | _policies()
        | _tables()
        | _table_stream()
        | _watch()
        | _past()
        | _clusters()
        | _events()
        | _logs()
        | _operations()
        | _self(),
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Needed as soon as one is configured, and beyond loopback.",
                }
            },
            "parameters": _parameters(),
            "responses": {kind.slug: _problem(kind) for kind in KINDS},
            "schemas": schemas(),
        },
    }


def _parameters() -> Json:
    headers = {
        "Idempotency-Key": (
            IDEMPOTENCY_KEY_CHARS_MAX,
            "A write is done at most once for each key. It stays in this cluster's log.",
        ),
        "If-None-Match": (
            TAGS_CHARS_MAX,
            "The `ETag` of an earlier answer: while it is the same, the answer is 304.",
        ),
        "Meshd-Actor": (ACTOR_CHARS_MAX, "Who asks, for the event's actor; `rest` if left out."),
    }
    found: Json = {
        name: {"name": name, "in": "path", "required": True, "schema": TEXT} for name in NAMES
    }
    for name, (chars_max, description) in headers.items():
        schema = TEXT | {"minLength": 1, "maxLength": chars_max, "pattern": "^[ -~]+$"}
        found[name] = {"name": name, "in": "header", "description": description, "schema": schema}
    return found


def _problem(kind: Kind) -> Json:
    example = {
        "type": TYPE_BASE + kind.slug,
        "title": kind.title,
        "status": kind.status,
        "detail": "…",
        "instance": "/v1/…",
        "problems": [],
    }
    answer: Json = {
        "description": kind.title,
        "content": {"application/problem+json": {"schema": ref("Problem"), "example": example}},
    }
    if kind in {OVERLOADED, UNAVAILABLE}:
        answer["headers"] = {"Retry-After": {"description": "Seconds to wait.", "schema": COUNT}}
    return answer


def _query(name: str, description: str, schema: Json = TEXT) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _parameter(name: str) -> Json:
    return {"$ref": f"#/components/parameters/{name}"}


def _answers(answer: Json, kinds: tuple[Kind, ...]) -> Json:
    """The answers of an operation; kinds that share a status are told apart by their type."""
    answers: Json = {"200": answer}
    for kind in sorted(kinds, key=lambda kind: kind.status):
        answers[str(kind.status)] = {"$ref": f"#/components/responses/{kind.slug}"}
    return answers


def _json(schema: Json, description: str = "Done.") -> Json:
    return {"description": description, "content": {JSON_TYPE: {"schema": schema}}}


def _read(
    name: str,
    summary: str,
    answer: str,
    *queries: Json,
    more: tuple[Kind, ...] = (),
    unchanged: bool = False,
) -> Json:
    answers = _answers(_json(ref(answer), summary), READ_KINDS + more)
    if unchanged:
        answers["304"] = {"description": "It is as the client has it: `If-None-Match` names it."}
    operation: Json = {"operationId": name, "summary": summary, "responses": answers}
    return operation | ({"parameters": list(queries)} if queries else {})


def _write(name: str, summary: str, body: Json | None, *, more: tuple[Kind, ...] = ()) -> Json:
    operation: Json = {
        "operationId": name,
        "summary": summary,
        "parameters": [_parameter("Idempotency-Key"), _parameter("Meshd-Actor")],
        "responses": _answers(_json(ref("WriteResult")), WRITE_KINDS + more),
    }
    return operation | ({"requestBody": {"required": True, "content": body}} if body else {})


def _body(schema: str, example: Json) -> Json:
    content = {"schema": ref(schema), "example": example}
    return {JSON_TYPE: content, YAML_TYPE: content}


def _at(*names: str, **operations: Json) -> Json:
    """A path with its parameters."""
    return {"parameters": [_parameter(name) for name in names], **operations}


def _as_of() -> Json:
    text = (
        "As it was: a time (RFC 3339, or milliseconds since 1970) or a vector; now if left out."
        " `as_of` of the answer is the exact vector, `unknown` whom it knows nothing of."
    )
    return _query("as_of", text)


def _services() -> Json:
    in_namespace = _query("namespace", "Only those of this namespace.")
    example: Json = {"global": True, "affinity": "local", "ports": [{"port": 80, "name": "http"}]}
    read = _read(
        "getService",
        "One own definition.",
        "ServiceItem",
        _as_of(),
        more=(NOT_FOUND, *PAST_KINDS),
    )
    body = _body("ServiceBody", example)
    return {
        "/v1/services": {
            "get": _read(
                "listServices",
                "This cluster's own definitions.",
                "ServiceList",
                in_namespace,
                _as_of(),
                more=PAST_KINDS,
            )
        },
        "/v1/services/{namespace}/{service}": _at(
            "namespace",
            "service",
            get=read,
            put=_write("putService", "Define a service, or replace its definition.", body),
            delete=_write(
                "deleteService", "Remove a service with its endpoints.", None, more=(NOT_FOUND,)
            ),
        ),
    }


def _endpoints() -> Json:
    missing = (NOT_FOUND, *PAST_KINDS)
    of_service = "/v1/services/{namespace}/{service}/endpoints"
    body = _body("EndpointBody", {"address": "10.1.0.1", "weight": 100, "zone": "eu-1a"})
    return {
        "/v1/endpoints": {
            "get": _read(
                "listEndpoints",
                "This cluster's own endpoints.",
                "EndpointList",
                _query("namespace", "Only those of this namespace."),
                _query("service", "Only those of services of this name."),
                _as_of(),
                more=PAST_KINDS,
            )
        },
        of_service: _at(
            "namespace",
            "service",
            get=_read(
                "listEndpointsOfService",
                "A service's own endpoints.",
                "EndpointList",
                _as_of(),
                more=missing,
            ),
        ),
        of_service + "/{endpoint}": _at(
            "namespace",
            "service",
            "endpoint",
            get=_read("getEndpoint", "One own endpoint.", "EndpointItem", _as_of(), more=missing),
            put=_write("putEndpoint", "Add an endpoint, or replace its value.", body),
            delete=_write("deleteEndpoint", "Remove an endpoint.", None, more=(NOT_FOUND,)),
        ),
        "/v1/apply": {"post": _apply()},
        "/v1/plan": {"post": _plan()},
    }


def _registrations() -> Json:
    one = "/v1/registrations/{namespace}/{service}/{endpoint}"
    names = ("namespace", "service", "endpoint")
    whose = _query("holder", "Only if this one registered it.")
    put = _write(
        "putRegistration",
        "Register an endpoint that is there while it is renewed, or keep it registered otherwise.",
        _body("Registering", {"endpoint": {"address": "10.1.0.1"}, "ttl_s": 30, "holder": "vm-1"}),
        more=(CONFLICT,),
    )
    remove = _write(
        "deleteRegistration",
        "Remove a registration with its endpoint.",
        None,
        more=(NOT_FOUND, CONFLICT),
    )
    remove["parameters"].append(whose)
    renew = _renewal("renewRegistration", "Renew one registration; makes no event.", None)
    renew["parameters"] = [whose]
    return {
        "/v1/probes": {
            "get": _read(
                "listProbes",
                "What the probes of this cluster's own endpoints come to.",
                "ProbeList",
                _query("namespace", "Only those of this namespace."),
                _query("service", "Only those of services of this name."),
            )
        },
        "/v1/registrations": {
            "get": _read(
                "listRegistrations",
                "The registrations of this cluster that are alive.",
                "RegistrationList",
                _query("namespace", "Only those of this namespace."),
                _query("service", "Only those of services of this name."),
            )
        },
        "/v1/registrations/renew": {
            "post": _renewal(
                "renewRegistrations",
                "Renew several; makes no event. What is `gone` is to be registered anew.",
                _body("Renewing", {"names": ["shop/web/a", "shop/web/b"]}),
            )
        },
        one: _at(
            *names,
            get=_read(
                "getRegistration",
                "One registration.",
                "RegistrationItem",
                more=(NOT_FOUND, INVALID),
            ),
            put=put,
            delete=remove,
        ),
        f"{one}/renew": _at(*names, post=renew),
    }


def _renewal(name: str, summary: str, body: Json | None) -> Json:
    operation: Json = {
        "operationId": name,
        "summary": summary,
        "responses": _answers(_json(ref("Renewed")), (*WRITE_KINDS, NOT_FOUND)),
    }
    return operation | ({"requestBody": {"required": True, "content": body}} if body else {})


def _things() -> Json:
    past = (NOT_FOUND, *PAST_KINDS)
    lists = (
        _query("cluster", "Whose; the own one if left out. A peer's are those that it exports."),
        _query(
            "label", "Only with this label, `name=value` or `name`; may be repeated.", many(TEXT)
        ),
    )
    node: Json = {"addresses": ["10.0.1.1"], "pod_cidrs": ["10.1.1.0/24"], "zone": "eu-1a"}
    allocate = _write(
        "allocateIdentity",
        "Give a set of labels its number: the same labels have the same one.",
        _body("IdentityBody", {"labels": {"app": "web", "team": "shop"}}),
        more=(CONFLICT,),
    )
    allocate["responses"]["200"] = _json(ref("IdentityResult"))
    return {
        "/v1/nodes": {
            "get": _read(
                "listNodes",
                "A cluster's nodes.",
                "NodeList",
                *lists,
                _as_of(),
                more=past,
            )
        },
        "/v1/nodes/{node}": _at(
            "node",
            get=_read("getNode", "One own node.", "NodeItem", _as_of(), more=past),
            put=_write(
                "putNode", "Add a node, or replace what is said of it.", _body("NodeBody", node)
            ),
            delete=_write("deleteNode", "Remove a node.", None, more=(NOT_FOUND,)),
        ),
        "/v1/identities": {
            "get": _read(
                "listIdentities",
                "A cluster's identities.",
                "IdentityList",
                *lists,
                _as_of(),
                more=(NOT_FOUND, *PAST_KINDS),
            ),
            "post": allocate,
        },
        "/v1/identities/{number}": _at(
            "number",
            get=_read(
                "getIdentity",
                "One own identity.",
                "IdentityItem",
                _as_of(),
                more=(NOT_FOUND, *PAST_KINDS),
            ),
            delete=_write(
                "deleteIdentity",
                "Take an identity's number back: other labels may get it.",
                None,
                more=(NOT_FOUND,),
            ),
        ),
        "/v1/cluster": {
            "get": _read("getOwnCluster", "What this cluster says of itself.", "OwnCluster"),
            "put": _write(
                "putOwnCluster",
                "Say how this cluster is now; it outlasts a restart.",
                _body("OwnClusterBody", {"state": "draining", "announces": ["10.1.0.0/16"]}),
            ),
        },
    }


def _policies() -> Json:
    past = (NOT_FOUND, *PAST_KINDS)
    body = {
        "subjects": {"labels": {"app": "db"}},
        "ingress": [{"peers": [{"labels": {"labels": {"app": "web"}}}], "ports": [{"port": 5432}]}],
    }
    who = (
        "`namespace/name@cluster` (a service, or a workload by its label `app.kubernetes.io/name`,"
        " `app` or `k8s-app`), `namespace/label=value,label=value@cluster`, an identity's number,"
        " or an address or DNS name outside; without @cluster of this one."
    )
    ends = (
        _query(f"{end}_{kind}", f"Only {end} identities of this {kind}.")
        for end in ("from", "to")
        for kind in ("namespace", "cluster")
    )
    return {
        "/v1/policies": {
            "get": _read(
                "listPolicies",
                "A cluster's policies.",
                "PolicyList",
                _query("cluster", "Whose; the own one if left out. A peer's: what it exports."),
                _query("namespace", "Only those of this namespace."),
                _query("label", "Only with this label; may be repeated.", many(TEXT)),
                _as_of(),
                more=past,
            )
        },
        "/v1/policies/{namespace}/{policy}": _at(
            "namespace",
            "policy",
            get=_read("getPolicy", "One own policy.", "PolicyItem", _as_of(), more=past),
            put=_write(
                "putPolicy",
                "Add a policy, or replace what it says.",
                _body("PolicyBody", body),
            ),
            delete=_write("deletePolicy", "Remove a policy.", None, more=(NOT_FOUND,)),
        ),
        "/v1/policy/check": {
            "get": _read(
                "checkPolicy",
                "Whether one may talk to another, by which rules, from which events.",
                "PolicyCheck",
                _query("from", f"Who begins the connection: {who}"),
                _query("to", "Whom it is for, as `from`, with `:port` behind it."),
                _query("protocol", "TCP if left out.", words(*Transport)),
                _as_of(),
                more=past,
            )
        },
        "/v1/policy/matrix": {
            "get": _read(
                "policyMatrix",
                "Who may talk to whom, by classes of identities that no policy can tell apart."
                " Pairs that may not at all are left out.",
                "PolicyMatrix",
                *ends,
                _query("limit", "About how many pairs; rows are whole.", COUNT),
                _query("after", "The `next` of a page; name an `as_of` for pages that fit.", COUNT),
                _as_of(),
                more=past,
            )
        },
    }


def _apply() -> Json:
    documents = {"anyOf": [{"type": "object"}, many({"type": "object"})]}
    operation = _write(
        "apply",
        "Take many definitions at once, or none.",
        {
            YAML_TYPE: {"schema": {}, "example": MANIFESTS},
            JSON_TYPE: {"schema": documents},
        },
        more=(CONFLICT,),
    )
    dry_run = _query("dry_run", "Say what would change, change nothing.", words("false", "true"))
    flag = words("false", "true")
    operation["parameters"] += [
        dry_run,
        _query("owner", "In whose name. Others' things are kept, and what has no owner is taken."),
        _query("take_over", "What others own becomes the owner's.", flag),
        _query(
            "prune",
            "Remove what the owner has and the documents don't. Looks again at what the owner has"
            " if the request is repeated and its last portion had changed nothing.",
            flag,
        ),
        _query("allow_empty", "With prune: also if there is no document.", flag),
        _query("expect_position", "Only if the log is still there (`decided_on`).", VECTOR),
    ]
    operation["responses"]["200"] = _json(ref("ApplyResult"))
    operation["description"] = (
        "Documents are meshd's own kinds (`meshd.io/v1` Service, Endpoint, Endpoints, Node,"
        " Identity, Policy, Cluster) and Kubernetes' Service, EndpointSlice, Node, NetworkPolicy"
        " and workloads, which are read as identities; others are named in `ignored`. An apply"
        " that is too large for one record is committed in portions; should one fail, `detail`"
        " says how far it came, and the same request completes it."
    )
    return operation


def _plan() -> Json:
    documents = {"anyOf": [{"type": "object"}, many({"type": "object"})]}
    operation = _write(
        "plan",
        "Say what definitions and removals would change in the tables of every cluster.",
        {
            YAML_TYPE: {"schema": {}, "example": MANIFESTS},
            JSON_TYPE: {"schema": documents},
        },
        more=(NOT_FOUND, DEADLINE),
    )
    for kind in (NO_SPACE, OUTCOME_UNKNOWN):
        operation["responses"].pop(str(kind.status), None)
    operation["responses"] |= _answers(_json(ref("Plan")), (UNAVAILABLE, DEADLINE))
    operation["requestBody"]["required"] = False
    operation["parameters"] = [
        _parameter("Meshd-Actor"),
        _query(
            "remove",
            "`service/<namespace>/<name>`, `endpoint/<namespace>/<service>/<name>` or"
            " `policy/<namespace>/<name>`, to be taken away behind the definitions. Repeatable.",
            many(TEXT),
        ),
        _query("perspective", "Only as these clusters would see it; all if left out.", many(TEXT)),
    ]
    operation["description"] = (
        "Nothing is written. The definitions are this cluster's own, as for /v1/apply; the effect"
        " is told as each cluster that is known here would see it, if its links are all fresh."
    )
    return operation


def _tables() -> Json:
    perspective = _query("perspective", "As this cluster sees it; the own one if left out.")
    return {
        "/v1/tables": {
            "get": _read(
                "getTable",
                "All global services.",
                "Table",
                perspective,
                _query("namespace", "Only services of this namespace."),
                _as_of(),
                more=(NOT_FOUND, *PAST_KINDS),
            )
        },
        "/v1/tables/{namespace}/{service}": _at(
            "namespace",
            "service",
            get=_read(
                "getTableService",
                "One global service.",
                "TableService",
                perspective,
                _as_of(),
                _parameter("If-None-Match"),
                more=(NOT_FOUND, *PAST_KINDS),
                unchanged=True,
            ),
        ),
        "/v1/tables/{namespace}/{service}/explain": _at(
            "namespace",
            "service",
            get=_read(
                "explainService",
                "Why each endpoint is in or out, and why each tier takes what it takes.",
                "Explanation",
                perspective,
                _as_of(),
                more=(NOT_FOUND, *PAST_KINDS),
            ),
        ),
        "/v1/tables/{namespace}/{service}/slots": _at(
            "namespace",
            "service",
            get=_read(
                "getServiceSlots",
                "One global service as slots for consistent hashing.",
                "Slots",
                perspective,
                _query("size", f"How many slots: {', '.join(map(str, SLOTS_SIZES))}."),
                more=(NOT_FOUND, INVALID),
            ),
        ),
    }


def _table_stream() -> Json:
    operation = _read(
        "followTables",
        "The tables, and what becomes of them, as a stream.",
        "Table",
        _query("delta", "Deltas instead of values.", words("false", "true")),
        _query("namespace", "Only services of these namespaces.", many(TEXT)),
        _query("service", "Only these services, as `namespace/name`.", many(TEXT)),
        _query("label", "Only services with all of these, `name=value` or `name`.", many(TEXT)),
        _query("cluster", "Only services in which one of these takes part.", many(TEXT)),
        _query("after", "A place to go on from, for those who can't set the header.", TEXT),
        _query("reset", "What to do where the place is gone.", words("end", "snapshot")),
        _resumption("Where to resume: the last `id`."),
        more=(NOT_FOUND, GONE, OVERLOADED),
    )
    operation["description"] = TABLE_STREAM
    operation["responses"]["200"] = _stream_answer()
    return {"/v1/tables/stream": {"get": operation}}


def _watch() -> Json:
    operation = _read(
        "watchMesh",
        "How the mesh is, and what becomes of it, as a stream.",
        "Status",
        _query(
            "every_s",
            "How often numbers alone are told at most.",
            COUNT | {"minimum": 1, "maximum": EVERY_S_MAX, "default": EVERY_S_DEFAULT},
        ),
        more=(OVERLOADED,),
    )
    operation["description"] = WATCH
    operation["responses"]["200"] = _stream_answer()
    return {"/v1/watch": {"get": operation}}


def _resumption(what: str) -> Json:
    return {"name": "Last-Event-ID", "in": "header", "description": what, "schema": TEXT}


def _stream_answer() -> Json:
    return {"description": "Messages.", "content": {"text/event-stream": {"schema": TEXT}}}


def _past() -> Json:
    diff = _read(
        "diffTables",
        "What is different between the tables of two moments.",
        "TableDiff",
        _query("from", "The older one: a time or a vector, as for `as_of`.") | {"required": True},
        _query("to", "The newer one; now if left out."),
        _query("perspective", "As this cluster sees it; the own one if left out."),
        _query("namespace", "Only services of this namespace."),
        more=(NOT_FOUND, *PAST_KINDS),
    )
    history = _read(
        "getHistory",
        "What happened to one thing, newest first, in all logs that are held here.",
        "HistoryPage",
        _query("cluster", "Only in the log of this cluster."),
        _query("limit", "", COUNT | {"minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT}),
        _query("before", "Where the page before said that the next one begins.", VECTOR),
        _query("endpoints", "With a service's endpoints.", words("false", "true")),
        more=(NOT_FOUND, *PAST_KINDS),
    )
    history["description"] = (
        f"`kind` is one of {', '.join(trail.KINDS)}; `name` may hold slashes. A request looks"
        f" through at most {SCAN_SEQS_MAX:,} events and {SCAN_BYTES_MAX >> 20} MiB: a page may hold"
        " fewer than `limit`, or none, and still have a `next`. Where a log was cut, the snapshot"
        " there tells what each thing was."
    )
    return {
        "/v1/tables/diff": {"get": diff},
        "/v1/history/{kind}/{name}": _at("kind", "name", get=history),
    }


def _clusters() -> Json:
    missing = (NOT_FOUND,)
    of_past = (NOT_FOUND, *PAST_KINDS)
    return {
        "/v1/clusters": {
            "get": _read(
                "listClusters",
                "This cluster and its peers.",
                "ClusterList",
                _as_of(),
                more=PAST_KINDS,
            )
        },
        "/v1/clusters/{cluster}": _at(
            "cluster", get=_read("getCluster", "One cluster.", "Cluster", _as_of(), more=of_past)
        ),
        "/v1/peers": {"get": _read("listPeers", "All peers.", "PeerList")},
        "/v1/peers/{cluster}": _at(
            "cluster",
            get=_read("getPeer", "One peer.", "Peer", more=missing),
            put=_write(
                "putPeer",
                "List a peer in the cluster's log, or replace what is listed of it.",
                _body("PeerBody", {"endpoints": ["10.2.0.1:2379"], "announces": ["10.2.0.0/16"]}),
                more=(CONFLICT,),
            ),
            delete=_write(
                "deletePeer",
                "Take a peer off the list in the cluster's log, and withdraw its backends.",
                None,
                more=(NOT_FOUND, CONFLICT),
            ),
        ),
        "/v1/peers/{cluster}/skip": _at("cluster", post=_skip()),
        **{
            f"/v1/peers/{{cluster}}/{action}": _at("cluster", post=_control(action, summary))
            for action, summary in PEER_CONTROLS.items()
        },
    }


def _skip() -> Json:
    operation = _write(
        "skipRecord",
        "Pass over the record at which a peer is Quarantined, in all meshds of the cluster.",
        {JSON_TYPE: {"schema": ref("SkipBody")}},
        more=(NOT_FOUND, CONFLICT),
    )
    operation["requestBody"]["required"] = False
    operation["description"] = (
        "Only a record that continues its log and can't be folded, or says what the peer may not,"
        " can be passed over: none of its events is folded then, and what comes behind it is read"
        " on. Clusters of which one has passed something over differ in their digests at the same"
        " vector."
    )
    return operation


PEER_CONTROLS = {
    "pause": "Stop reading a peer until it is resumed or meshd starts again.",
    "resume": "Read a paused peer again.",
    "resync": "Read a peer's log anew beside what is served.",
}


def _control(action: str, summary: str) -> Json:
    asked: Json = {
        "type": "object",
        "additionalProperties": False,
        "required": ["peer", "asked"],
        "properties": {"peer": TEXT, "asked": {"const": action}},
    }
    answers = _answers(_json(asked, "Asked for."), (*READ_KINDS, NOT_FOUND))
    return {
        "operationId": f"{action}Peer",
        "summary": summary,
        "parameters": [_parameter("Meshd-Actor")],
        "responses": {"202": answers.pop("200"), **answers},
    }


def _events() -> Json:
    operation = _read(
        "getEvents",
        "A page of one log's events, or a stream of several logs'.",
        "EventPage",
        _query("cluster", "Whose. List: the own one if left out. Stream: may be repeated; all."),
        _query("after", "List: after this seq. Stream: after this vector.", TEXT),
        _query("limit", "List only.", COUNT | {"minimum": 1, "maximum": 1000, "default": 100}),
        _query(
            "type",
            "Only these, with or without `io.meshd.`; types that this meshd doesn't know, if a log"
            " here holds one.",
            many(TEXT),
        ),
        _query(
            "namespace",
            "Only services, endpoints and policies of these, and identities with their label."
            " Removals of identities pass: they don't say a namespace.",
            many(TEXT),
        ),
        _query(
            "service", "Only these services, `namespace/name`, and their endpoints.", many(TEXT)
        ),
        _query(
            "label",
            "Only what has all these labels, `name=value` or `name`. Removals pass: they don't say"
            " labels. That a thing lost a label is not told.",
            many(TEXT),
        ),
        _query("from", "Stream only, without a position.", words("now", "beginning", "snapshot")),
        _query(
            "since",
            "Stream only: events of this time and later (RFC 3339, or milliseconds since 1970).",
        ),
        _query(
            "reset",
            "Stream only: what comes where the place is gone: 410 or `meshd.reset` and the end, or"
            " `meshd.reset` and a snapshot.",
            words("end", "snapshot"),
        ),
        {
            "name": "Last-Event-ID",
            "in": "header",
            "description": "Stream only: where to resume.",
            "schema": VECTOR,
        },
        more=(FORBIDDEN, NOT_FOUND, GONE, OVERLOADED, CORRUPT),
    )
    operation["description"] = STREAM
    operation["responses"]["200"]["content"]["text/event-stream"] = {"schema": TEXT}
    return {"/v1/events": {"get": operation}}


def _logs() -> Json:
    archive = _read(
        "getArchive",
        "One log as an archive (protocols/archive.md), as far as it goes now.",
        "LogList",
        _query("log", "`local`, `export/<audience>` or `replica/<peer>`."),
        more=(NOT_FOUND, INVALID, CORRUPT),
    )
    archive["responses"]["200"] = {
        "description": "The file. One that breaks off has no footer.",
        "content": {ARCHIVE_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    }
    return {
        "/v1/logs": {
            "get": _read("listLogs", "The logs in the own etcd.", "LogList", more=(CORRUPT,))
        },
        "/v1/logs/archive": {"get": archive},
    }


def _started(name: str, summary: str, body: Json) -> Json:
    """An operation is made, so it is answered with 201; with dry_run with 200."""
    dry_run = _query("dry_run", "Only say what each stage would do.", FLAG)
    operation = _write(name, summary, body, more=(CONFLICT,))
    operation["parameters"].append(dry_run)
    answer = _json(ref("OperationStarted"))
    operation["responses"] |= {"200": answer, "201": answer}
    return operation


def _operations() -> Json:
    drain: Json = {"kind": "undrain", "subjects": ["cluster"], "over_s": 60.0, "steps": 6}
    migration: Json = {
        "from": "east",
        "to": "west",
        "services": ["shop/web"],
        "steps": [{"percent": 10, "hold_s": 60.0}, {"percent": 100}],
        "conditions": {"healthy_percent_min": 90},
    }
    start, migrate = "Drain something, or undrain it.", "Move services to another cluster."
    told = _write(
        "tellSignal",
        "Tell how many percent of requests fail, as somebody outside measured it.",
        _body("SignalBody", {"error_percent": 0.2}),
        more=(NOT_FOUND,),
    )
    told["responses"]["202"] = _json(ref("Signal"), "Noted.")
    del told["responses"]["200"]
    moves = {}
    for move, summary in OPERATION_MOVES.items():
        asked = _write(
            f"{move}Operation", summary, _body("ReasonBody", {"reason": "…"}), more=(NOT_FOUND,)
        )
        asked["requestBody"]["required"] = False
        moves[f"/v1/operations/{{operation}}/{move}"] = _at("operation", post=asked)
    one = _read("getOperation", "One operation.", "OperationItem", more=(NOT_FOUND, INVALID))
    removed = _write("deleteOperation", "Forget one that ended.", None, more=(NOT_FOUND,))
    return {
        "/v1/operations": {
            "get": _read("listOperations", "All operations.", "OperationList"),
            "post": _started("startOperation", start, _body("DrainBody", drain)),
        },
        "/v1/migrations": {
            "post": _started("startMigration", migrate, _body("MigrationBody", migration))
        },
        "/v1/operations/{operation}": _at("operation", get=one, delete=removed),
        **moves,
        "/v1/operations/{operation}/signal": _at("operation", post=told),
    }


OPERATION_MOVES = {
    "pause": "Hold an operation where it is.",
    "resume": "Let a paused operation go on.",
    "rollback": "Turn everything back to where it was before.",
}


def _verify() -> Json:
    operation = _read("verify", "Whether all clusters agree, and who is behind.", "Agreement")
    operation["description"] = (
        "Each cluster's heartbeat says how far it has read every log, and the digest that it came"
        " to. That is compared with the digest which is derived here for that cluster, while both"
        " are at the same places of the same logs. Peers are asked nothing."
    )
    return operation


def _contract(name: str, summary: str) -> Json:
    responses = _answers(_json({"type": "object"}, summary), READ_KINDS)
    return {"get": {"operationId": name, "summary": summary, "responses": responses}}


def _self() -> Json:
    always = {"security": [{}]}
    ready, alive = "Whether tables and writes are to be had here.", "The event loop turns."
    text = {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": TEXT}}}
    return {
        "/v1/verify": {"get": _verify()},
        "/v1/status": {"get": _read("getStatus", "Everything at a glance.", "Status")},
        "/v1/openapi.json": _contract("getOpenapi", "This document."),
        "/v1/asyncapi.json": _contract(
            "getAsyncapi", "Streams and MQTT topics, as AsyncAPI has it."
        ),
        "/livez": {
            "get": always
            | {
                "operationId": "getLivez",
                "summary": alive,
                "responses": {"200": _json(ref("Alive"), alive)},
            }
        },
        "/readyz": {
            "get": always
            | {
                "operationId": "getReadyz",
                "summary": ready,
                "responses": {
                    "200": _json(ref("Readiness"), ready),
                    "503": _json(ref("Readiness"), "Not yet, and why."),
                },
            }
        },
        "/metrics": {
            "get": {
                "operationId": "getMetrics",
                "summary": "Numbers (protocols/metrics.md).",
                "responses": _answers(text, READ_KINDS),
            }
        },
    }
