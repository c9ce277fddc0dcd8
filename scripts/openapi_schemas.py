"""The shapes in openapi.json.

For: component schemas; those of values come from the model. Not for: paths (`openapi_paths`).
Invariant: a shape of an answer requires every field that meshd sends; readers ignore others.
"""

from __future__ import annotations

from typing import Any

from meshd.core.agreement import Verdict
from meshd.core.judge import Verdict as Permission
from meshd.core.manifests import Ignored
from meshd.core.overlaps import RangeCondition
from meshd.core.policies import ConditionType as PolicyConditionType
from meshd.core.probing import HeldReason
from meshd.core.table_diff import DiffKind
from meshd.edges.http.registrations import LEFT_MAX
from meshd.model.cluster import Availability, ClusterInfo
from meshd.model.endpoint import Endpoint
from meshd.model.event import EventType
from meshd.model.identity import Identity
from meshd.model.listed import ListedPeer
from meshd.model.node import Node
from meshd.model.operation import REASON_CHARS_MAX, DrainPlan, MigrationPlan, Operation
from meshd.model.peer import Phase
from meshd.model.policy import Direction, Policy
from meshd.model.probe import ProbeResult, ProbeType
from meshd.model.publishing import PublishPhase
from meshd.model.registration import RENEWALS_MAX, Registering
from meshd.model.schema import json_schema
from meshd.model.service import Service, Transport
from meshd.model.table import ConditionType, Reason, Standing

Json = dict[str, Any]

REF_BASE = "#/components/schemas/"
TEXT: Json = {"type": "string"}
FLAG: Json = {"type": "boolean"}
COUNT: Json = {"type": "integer", "minimum": 0}
NUMBER: Json = {"type": "number", "minimum": 0}
LOG_ID: Json = {
    "type": "string",
    "pattern": "^[0-9a-f]{32}$",
    "description": "The incarnation of a log: a random UUID.",
}
HASH: Json = {"type": "string", "pattern": "^[0-9a-f]{32}$", "description": "BLAKE2b-128."}
NUMBER_OF_IDENTITY: Json = {
    "type": "integer",
    "minimum": (1 << 16) + 256,
    "maximum": (512 << 16) - 1,
    "description": "Cluster id * 65536 + a number of 256..65535.",
}
TIME: Json = {"type": "string", "format": "date-time"}
LABELS: Json = {"type": "object", "additionalProperties": TEXT}
VECTOR: Json = {
    "type": "string",
    "description": "Positions `cluster:log id:seq`, sorted by cluster, with commas between them.",
    "examples": ["east:0f2c6b0f9a7e4d0c8b1d2e3f4a5b6c7d:42"],
}


def ref(name: str) -> Json:
    """A shape by its name."""
    return {"$ref": REF_BASE + name}


def many(item: Json) -> Json:
    """A list."""
    return {"type": "array", "items": item}


def words(*texts: str) -> Json:
    """One of a few words."""
    return {"type": "string", "enum": [str(text) for text in texts]}


def maybe(schema: Json) -> Json:
    """The same, or null while it isn't known."""
    return {"anyOf": [schema, {"type": "null"}]}


def shape(description: str, /, **fields: Json) -> Json:
    """An object of an answer: all its fields are always there. A field `self_` is `self`."""
    named = {name.rstrip("_"): schema for name, schema in fields.items()}
    return {
        "type": "object",
        "description": description,
        "properties": named,
        "required": list(named),
    }


TIER: Json = {
    "priority": COUNT,
    "clusters": many(TEXT),
    "backends": COUNT,
    "eligible": COUNT,
    "weight": NUMBER,
    "healthy_ppm": COUNT,
    "turned_ppm": COUNT,
    "percent": COUNT,
    "reach_ppm": COUNT,
    "share_ppm": COUNT,
}
"""What is told of a tier."""


def timed(schema: Json) -> Json:
    """One thing's shape, which names its moment only where it is an earlier one."""
    moment = {"as_of": VECTOR, "unknown": many(TEXT)}
    return schema | {"properties": schema["properties"] | moment}


def listed(description: str, item: str) -> Json:
    """A list of states. as_of: the exact vector of an earlier moment; null for now."""
    moment = {"as_of": maybe(VECTOR), "unknown": many(TEXT)}
    return shape(description, items=many(ref(item)), **moment)


VALUES = (
    *(Service, Endpoint, ListedPeer, ClusterInfo, Node, Identity),
    *(Policy, Operation, DrainPlan, MigrationPlan, Registering),
)
"""What of the model is sent and answered."""


def schemas() -> Json:
    """All component schemas."""
    values, parts = _values()
    made = (_items(values), _bodies(values), _operations(values), _health(values), _tables())
    found: Json = {}
    for group in (
        *(parts, *made, _past(), _clusters(), _writes(), _mesh(), _events(), _reach(), _rest()),
    ):
        clashing = found.keys() & group.keys()
        if clashing:
            raise ValueError(f"two schemas have one name: {sorted(clashing)}")
        found |= group
    return found


def _values() -> tuple[Json, Json]:
    """The fields of the model's values, and the shapes that they refer to."""
    values: Json = {}
    parts: Json = {}
    for kind in VALUES:
        schema = _rebase(json_schema(kind))
        parts |= schema.pop("$defs", {})
        values[kind.__name__] = schema["properties"]
    parts["PortItem"] = parts["Port"] | {"required": list(parts["Port"]["properties"])}
    return values, parts


def _rebase(value: Any) -> Any:
    """Let references point to components."""
    if isinstance(value, dict):
        return {
            key: item.replace("#/$defs/", REF_BASE) if key == "$ref" else _rebase(item)
            for key, item in value.items()
        }
    return [_rebase(item) for item in value] if isinstance(value, list) else value


def _items(values: Json) -> Json:
    """What is read of values: everything is there, defaults included."""
    service = values["Service"] | {"ports": many(ref("PortItem"))}
    endpoint = values["Endpoint"] | {"ports": many(ref("PortItem"))}
    names = {"namespace": TEXT, "name": TEXT}
    return {
        "Origin": shape(
            "The event that made something so. seq: in that cluster's log as it is told here, which"
            " is the local log for the own cluster and the export log for a peer.",
            cluster=TEXT,
            log_id=LOG_ID,
            seq=COUNT,
            time=TIME,
            actor=TEXT,
        ),
        "ServiceItem": timed(
            shape(
                "This cluster's own definition of a service.",
                **names,
                **service,
                origin=ref("Origin"),
            )
        ),
        "EndpointItem": timed(
            shape(
                "This cluster's own endpoint.",
                **names,
                service=TEXT,
                **endpoint,
                origin=ref("Origin"),
            )
        ),
        "NodeItem": timed(
            shape("A node of a cluster.", name=TEXT, **values["Node"], origin=ref("Origin"))
        ),
        "IdentityItem": timed(
            shape(
                "A set of labels, and the number that stands for it.",
                number=NUMBER_OF_IDENTITY,
                **values["Identity"],
                origin=ref("Origin"),
            )
        ),
        "PolicyItem": timed(
            shape(
                "What a cluster says of who may talk to whom.",
                **names,
                **values["Policy"],
                conditions=many(
                    shape(
                        "What is to be known of it.",
                        type=words(*PolicyConditionType),
                        message=TEXT,
                    )
                ),
                origin=ref("Origin"),
            )
        ),
        "PolicyList": listed("Policies.", "PolicyItem"),
        "OwnCluster": shape(
            "What this cluster says of itself.", **values["ClusterInfo"], origin=ref("Origin")
        ),
        "NodeList": listed("Nodes.", "NodeItem"),
        "IdentityList": listed("Identities.", "IdentityItem"),
        "ServiceList": listed("Services.", "ServiceItem"),
        "EndpointList": listed("Endpoints.", "EndpointItem"),
    }


def _bodies(values: Json) -> Json:
    """What is sent to set values: what is left out is at its default; others are refused."""
    repeated = {"description": "May repeat the path, and nothing else.", "type": "string"}
    ignored = {"description": "As GET shows it; it is ignored."}
    service_names = {"namespace": repeated, "name": repeated}
    service_names |= dict.fromkeys(("origin", "as_of", "unknown"), ignored)
    return {
        "ServiceBody": {
            "type": "object",
            "additionalProperties": False,
            "properties": values["Service"] | service_names,
        },
        "EndpointBody": {
            "type": "object",
            "additionalProperties": False,
            "required": ["address"],
            "properties": values["Endpoint"] | service_names | {"service": repeated},
        },
        "NodeBody": {
            "type": "object",
            "additionalProperties": False,
            "required": ["addresses"],
            "properties": values["Node"] | {"name": repeated, "origin": ignored},
        },
        "IdentityBody": {
            "type": "object",
            "additionalProperties": False,
            "required": ["labels"],
            "properties": values["Identity"],
        },
        "PolicyBody": {
            "type": "object",
            "additionalProperties": False,
            "properties": values["Policy"] | service_names | {"conditions": ignored},
        },
        "OwnClusterBody": {
            "type": "object",
            "description": "state, weight, announces: what is left out is at its default. The"
            " others are as the settings say, and may be repeated.",
            "additionalProperties": False,
            "properties": values["ClusterInfo"] | {"origin": ignored},
        },
        "PeerBody": {
            "type": "object",
            "additionalProperties": False,
            "required": ["endpoints"],
            "properties": values["ListedPeer"] | {"name": repeated},
        },
        "SkipBody": {
            "type": "object",
            "description": "seq: what the person saw; only if the peer is Quarantined just there.",
            "additionalProperties": False,
            "properties": {"seq": COUNT | {"minimum": 1}},
        },
    }


def _health(values: Json) -> Json:
    names = {"namespace": TEXT, "service": TEXT, "name": TEXT}
    return {
        "Registering": {
            "type": "object",
            "description": "ttl_s: how long it stays without being renewed. holder: who registers"
            " it; another one is refused while it lives.",
            "additionalProperties": False,
            "required": ["endpoint"],
            "properties": values["Registering"],
        },
        "RegistrationItem": shape(
            "A registration that is alive. left_s: until it ends if nobody renews it; null in a"
            f" list of more than {LEFT_MAX}.",
            **names,
            ttl_s=COUNT,
            left_s=maybe(NUMBER),
            holder=TEXT,
            actor=TEXT,
            since=TEXT,
        ),
        "ProbeItem": shape(
            "An endpoint of a service with a probe. result: as the log has it. held: why it isn't"
            " probed; why: the same in words. What is null is known only to the meshd that probes.",
            **names,
            address=TEXT,
            type=words(*ProbeType),
            result=words(*ProbeResult),
            port=maybe(COUNT),
            since=maybe(TEXT),
            asked=maybe(COUNT),
            failed=maybe(COUNT),
            good_in_a_row=maybe(COUNT),
            bad_in_a_row=maybe(COUNT),
            last_error=maybe(TEXT),
            held=maybe(words(*HeldReason)),
            why=TEXT,
        ),
        "ProbeList": shape(
            "All of them. prober: this meshd leads, and probes. left_out: how many are beyond"
            " health.probed_max.",
            prober=FLAG,
            left_out=COUNT,
            items=many(ref("ProbeItem")),
        ),
        "RegistrationList": shape("Registrations.", items=many(ref("RegistrationItem"))),
        "Renewing": {
            "type": "object",
            "description": "names: like `shop/web/a`. holder: only what this one registered.",
            "additionalProperties": False,
            "required": ["names"],
            "properties": {
                "names": many(TEXT) | {"maxItems": RENEWALS_MAX},
                "holder": maybe(TEXT),
            },
        },
        "Renewed": shape(
            "What became of renewing. gone: register these anew.", renewed=COUNT, gone=many(TEXT)
        ),
    }


def _operations(values: Json) -> Json:
    name = {"name": TEXT | {"description": "What to call it; made up if left out."}}
    foreseen = shape(
        "What a stage will do. shares_ppm: by service and cluster.",
        turned_percent=COUNT,
        shares_ppm={"type": "object", "additionalProperties": {"type": "object"}},
    )
    started = shape(
        "An operation that was begun, or with dry_run would be: then what a write says isn't there."
        " stages: what each will do, of at most 50 services; none where an earlier request had"
        " begun it. too_little: why it had to be forced.",
        name=TEXT,
        dry_run=FLAG,
        stages=many(foreseen),
        too_little=many({"type": "object"}),
        events=COUNT,
        first_seq=COUNT,
        last_seq=COUNT,
        position=TEXT,
        repeated=FLAG,
    )
    return {
        "OperationItem": shape(
            "An operation as it stands. turned_percent: how far it has turned up each subject."
            " next_at: when the next stage is due at the earliest. waits_for: what the asked meshd,"
            " if it leads, waits for.",
            name=TEXT,
            **values["Operation"],
            turned_percent={"type": "object", "additionalProperties": COUNT},
            next_at=maybe(TIME),
            waits_for=maybe(TEXT),
            origin=ref("Origin"),
        ),
        "OperationList": shape("Operations.", items=many(ref("OperationItem"))),
        "OperationStarted": started | {"required": ["name", "dry_run", "stages", "too_little"]},
        "DrainBody": {
            "type": "object",
            "additionalProperties": False,
            "required": ["kind", "subjects"],
            "properties": values["DrainPlan"] | name,
        },
        "MigrationBody": {
            "type": "object",
            "additionalProperties": False,
            "required": ["from", "to", "services", "steps"],
            "properties": values["MigrationPlan"] | name,
        },
        "ReasonBody": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"reason": TEXT | {"maxLength": REASON_CHARS_MAX}},
        },
        "SignalBody": {
            "type": "object",
            "additionalProperties": False,
            "required": ["error_percent"],
            "properties": {"error_percent": NUMBER | {"maximum": 100}},
        },
        "Signal": shape("What was told, and when.", error_percent=NUMBER, time=TIME),
    }


def _tables() -> Json:
    return {
        "Backend": shape(
            "An endpoint of a global service, in it or out of it. priority: that of its tier."
            " endpoint_weight: its own. weight: with its service's and its cluster's in it; its"
            " share within the tier. serving: whether what is established may go on, though it is"
            " out.",
            cluster=TEXT,
            name=TEXT,
            address=TEXT,
            ports=many(ref("PortItem")),
            priority=COUNT,
            endpoint_weight=COUNT,
            weight=NUMBER,
            region=TEXT,
            zone=TEXT,
            node=TEXT,
            serving=FLAG,
            eligible=FLAG,
            reason=maybe(words(*Reason)),
            origin=ref("Origin"),
        ),
        "Condition": shape(
            "Something remarkable about a global service. cluster: whose definition it is about.",
            type=words(*ConditionType),
            cluster=TEXT,
            message=TEXT,
        ),
        "TierShare": shape(
            "The backends of one priority together, and how much of the traffic they take. healthy:"
            " of what could serve, weighed, how much is ready. turned: how far its clusters are"
            " turned up. percent: the most that the definition gives it. reach: how much gets here."
            " share: how much of it stays; the shares add up to 1,000,000, or to 0 without any"
            " eligible backend.",
            **TIER,
        ),
        "TableService": timed(
            shape(
                "A global service from one cluster's perspective. stale: those of its clusters that"
                " are out of sight now, so that their backends are as last known.",
                namespace=TEXT,
                name=TEXT,
                ports=many(ref("PortItem")),
                headless=FLAG,
                session_affinity=ref("SessionAffinity"),
                session_timeout_s=COUNT,
                affinity=ref("Affinity"),
                spill=ref("Spill"),
                exposure=ref("Exposure"),
                labels=LABELS,
                clusters=many(TEXT),
                stale=many(TEXT),
                conditions=many(ref("Condition")),
                digest=HASH,
                tiers=many(ref("TierShare")),
                backends=many(ref("Backend")),
            )
        ),
        "Made": shape(
            "An event that made something so. what: its type and key.",
            what=TEXT,
            cluster=TEXT,
            log_id=LOG_ID,
            seq=COUNT,
            time=TIME,
            actor=TEXT,
        ),
        "ExplainedEndpoint": shape(
            "An endpoint of a service, in it or out of it, and why. tier: its place among the"
            " tiers, from 0; null where the table has no backend of it. made: the events that it"
            " rests on, the deciding one first.",
            cluster=TEXT,
            name=TEXT,
            address=TEXT,
            eligible=FLAG,
            tier=maybe(COUNT),
            share_ppm=COUNT,
            reason=maybe(words(*Reason)),
            why=TEXT,
            made=many(ref("Made")),
        ),
        "Explanation": timed(
            shape(
                "Why a service is as it is, as one cluster sees it. tiers: as in TableService, with"
                " why their clusters stand there (order) and why they take so much.",
                perspective=TEXT,
                vector_text=VECTOR,
                namespace=TEXT,
                name=TEXT,
                served=FLAG,
                why=TEXT,
                affinity=maybe(ref("Affinity")),
                clusters=many(TEXT),
                conditions=many(ref("Condition")),
                tiers=many(shape("A tier, and why.", **TIER, order=TEXT, why=TEXT)),
                endpoints=many(ref("ExplainedEndpoint")),
            )
        ),
        "Slots": shape(
            "A global service as a table for consistent hashing (Maglev). slots: for each slot, the"
            " index of its backend; none if nothing takes traffic.",
            vector_text=VECTOR,
            size=COUNT,
            backends=many(shape("A backend.", cluster=TEXT, name=TEXT, address=TEXT)),
            slots=many(COUNT),
        ),
        "Table": shape(
            "All global services from one cluster's perspective. vector_text: in the positions that"
            " all clusters share; the same vector and perspective give the same digest anywhere."
            " events_after: where to follow events from, to see every later change. stale: the"
            " clusters that are out of sight now, so that what is theirs is as last known. unsure:"
            " those of which another perspective may know something else: by its heartbeat it reads"
            " another export log of theirs than is read here, or it wasn't heard. as_of:"
            " the exact vector of an earlier state, in the positions of events_after; null for now."
            " unknown: clusters of which nothing was known then.",
            perspective=TEXT,
            vector_text=VECTOR,
            events_after=VECTOR,
            digest=HASH,
            stale=many(TEXT),
            unsure=many(TEXT),
            as_of=maybe(VECTOR),
            unknown=many(TEXT),
            services=many(ref("TableService")),
        ),
    }


def _past() -> Json:
    change = words(*DiffKind)
    fields = many(ref("FieldChange"))
    return {
        "BackendDiff": shape(
            "A backend that came, went or changed. origin: the event that made it what it is now."
            " before: the one that had made it what it was. Where both are the same, it is the"
            " service's definition that changed what the backend is.",
            cluster=TEXT,
            name=TEXT,
            change=change,
            fields=fields,
            origin=maybe(ref("Origin")),
            before=maybe(ref("Origin")),
        ),
        "ServiceDiff": shape(
            "A service that came, went or changed. fields: of its definition.",
            namespace=TEXT,
            name=TEXT,
            change=change,
            fields=fields,
            backends=many(ref("BackendDiff")),
        ),
        "TableDiff": shape(
            "What is different between the tables of two vectors, all clusters taken as fresh.",
            perspective=TEXT,
            from_=VECTOR,
            to=VECTOR,
            unknown_from=many(TEXT),
            unknown_to=many(TEXT),
            digest_from=HASH,
            digest_to=HASH,
            services=many(ref("ServiceDiff")),
        ),
        "Step": shape(
            "One event of a thing's history. data: its value since then; null for a removal."
            " changes: against the value before, where fields at their defaults are left out; null"
            " where that wasn't looked for far enough. snapshot_seq: what was before the log's cut"
            " is told by the snapshot at that seq; null for an event of the log.",
            cluster=TEXT,
            log_id=LOG_ID,
            seq=COUNT,
            time=TIME,
            actor=TEXT,
            type=TEXT,
            subject=TEXT,
            data={},
            changes=maybe(fields),
            snapshot_seq=maybe(COUNT),
        ),
        "HistoryPage": shape(
            "What happened to one thing, newest first. next: the `before` of the next page; null at"
            " the end. unknown: clusters of whose logs nothing is held.",
            kind=TEXT,
            name=TEXT,
            items=many(ref("Step")),
            next=maybe(VECTOR),
            unknown=many(TEXT),
        ),
    }


def _clusters() -> Json:
    return {
        "Cluster": timed(
            shape(
                "A cluster as known from here. null: not known yet, which is not the same as none."
                " phase: null of an earlier state.",
                name=TEXT,
                id=maybe({"type": "integer", "minimum": 1, "maximum": 511}),
                region=maybe(TEXT),
                zone=maybe(TEXT),
                labels=LABELS,
                self_=FLAG,
                phase=maybe(words(*Phase)),
                log_id=maybe(LOG_ID),
                seq=maybe(COUNT),
                services=maybe(COUNT),
                endpoints=maybe(COUNT),
                nodes=maybe(COUNT),
                identities=maybe(COUNT),
                policies=maybe(COUNT),
                state=maybe(words(*Availability)),
                weight=maybe(COUNT),
                turned_percent=maybe(COUNT),
                announces=maybe(many(TEXT)),
                conditions=many(ref("RangeCondition")),
                conditions_count=COUNT,
            )
        ),
        "RangeCondition": shape(
            "Address ranges that collide. clusters: whose. ranges: the wider one first. Of all that"
            " collides in the mesh the first hundred are told; conditions_count says how many"
            " concern the cluster.",
            type=words(*RangeCondition),
            clusters=many(TEXT),
            ranges=many(TEXT),
            message=TEXT,
        ),
        "ClusterList": listed("Clusters.", "Cluster"),
        "Peer": shape(
            "A peer and the way to it. since: when the phase began. standing: what its liveness"
            " does to its backends. seq, head_seq: how far its log is read, and how far it goes."
            " unfresh_s: for how long it hasn't been fresh; 0 while it is. snapshots: how often its"
            " snapshot was read. round_trip_s: the quickest of the last reads of its etcd."
            " slowed_s: for how long its log was read slower than it came, since it went beyond its"
            " budget. replica_seq: how far the copy in the own etcd goes."
            " source: who lists it. quarantined_seq: where the record begins at which it stopped."
            " skipped: where the records begin that were passed over: this state is not all that"
            " its log says.",
            name=TEXT,
            phase=words(*Phase),
            reason=TEXT,
            since=TIME,
            standing=words(*Standing),
            log_id=maybe(LOG_ID),
            seq=maybe(COUNT),
            head_seq=maybe(COUNT),
            lag_events=maybe(COUNT),
            heartbeat_age_s=maybe(NUMBER),
            round_trip_s=maybe(NUMBER),
            unfresh_s=NUMBER,
            link=words("up", "down"),
            records_read=COUNT,
            records_duplicate=COUNT,
            reconnects=COUNT,
            forks=COUNT,
            replica_seq=COUNT,
            snapshots=COUNT,
            slowed_s=NUMBER,
            source=words("settings", "log"),
            endpoints=many(TEXT),
            quarantined_seq=maybe(COUNT),
            skipped=many(COUNT),
        ),
        "PeerList": shape("Peers.", items=many(ref("Peer"))),
    }


def _writes() -> Json:
    document = dict.fromkeys(Ignored.__dataclass_fields__, TEXT)
    change = words("created", "updated", "unchanged")
    return {
        "WriteResult": shape(
            "What became of a write. events: 0 if it changed nothing; the seqs are the log's then."
            " repeated: an earlier request with the same Idempotency-Key had done it.",
            events=COUNT,
            first_seq=COUNT,
            last_seq=COUNT,
            position=VECTOR,
            repeated=FLAG,
        ),
        "IdentityResult": shape(
            "What became of asking for an identity. events: 0 if these labels had a number.",
            number=NUMBER_OF_IDENTITY,
            events=COUNT,
            first_seq=COUNT,
            last_seq=COUNT,
            position=VECTOR,
            repeated=FLAG,
        ),
        "AppliedDocument": shape(
            "A document that was taken. changes: the first of its changes_count.",
            **{name: text for name, text in document.items() if name != "reason"},
            note=TEXT,
            change=change,
            changes=many(ref("FieldChange")),
            changes_count=COUNT,
        ),
        "FieldChange": shape(
            "A field that differs, by its path; null where it isn't there.",
            path=TEXT,
            old={},
            new={},
        ),
        "RemovedThing": shape(
            "A thing that its owner no longer has. name: of an endpoint, with its service's before"
            " it.",
            kind=TEXT,
            namespace=TEXT,
            name=TEXT,
        ),
        "IgnoredDocument": shape("A document that means nothing to meshd, and why.", **document),
        "ApplyResult": shape(
            "What became of an apply. The seqs and the position are null in a dry run. decided_on:"
            " where the log was; as `expect_position` it makes an apply that of this dry run.",
            dry_run=FLAG,
            decided_on=VECTOR,
            events=COUNT,
            first_seq=maybe(COUNT),
            last_seq=maybe(COUNT),
            position=maybe(VECTOR),
            repeated=FLAG,
            applied=many(ref("AppliedDocument")),
            removed=many(ref("RemovedThing")),
            ignored=many(ref("IgnoredDocument")),
        ),
    }


def _mesh() -> Json:
    names = {"namespace": TEXT, "name": TEXT}
    differs = {"change": words(*DiffKind), "fields": many(ref("FieldChange"))}
    place = shape("A place in a log.", log_id=LOG_ID, seq=COUNT)
    return {
        "PlannedBackend": shape(
            "A backend that would come, go or change. Its origin isn't compared.",
            cluster=TEXT,
            name=TEXT,
            **differs,
        ),
        "ServiceEffect": shape(
            "A service that would come, go or change. eligible_before, eligible_after: how many of"
            " its backends are in; null where it isn't served. backends_omitted: how many more"
            " backends would change than are listed.",
            **names,
            eligible_before=maybe(COUNT),
            eligible_after=maybe(COUNT),
            backends=many(ref("PlannedBackend")),
            backends_omitted=COUNT,
            **differs,
        ),
        "Plan": shape(
            "What changes would do. vector_text: where this cluster stood. events: how many the"
            " local log would get. unknown: peers of which nothing is known yet, so that their"
            " tables can't be told. empty: services that would be served, changed, and left without"
            " a backend that is in. removed: what was asked to be taken away.",
            cluster=TEXT,
            vector_text=VECTOR,
            events=COUNT,
            unknown=many(TEXT),
            removed=many(TEXT),
            applied=many(ref("AppliedDocument")),
            ignored=many(ref("IgnoredDocument")),
            empty=many(
                shape(
                    "A service without a backend that is in.",
                    perspective=TEXT,
                    **names,
                    eligible_before=maybe(COUNT),
                )
            ),
            reach=ref("ReachEffect"),
            perspectives=many(
                shape("One cluster's table.", perspective=TEXT, services=many(ref("ServiceEffect")))
            ),
        ),
        "Standpoint": shape(
            "A cluster beside the others. vector, digest: as it last said. here_text, digest_here:"
            " what is derived for it here, where this cluster stands in the logs that it reads."
            " age_s: since its heartbeat advanced. behind: the logs of which it lacks events;"
            " events: null if it reads another log than is known here; seconds: the age of the"
            " oldest one, null if that isn't known. compared: the last time that both were at the"
            " same places.",
            name=TEXT,
            self_=FLAG,
            verdict=words(*Verdict),
            reason=TEXT,
            vector=maybe({"type": "object", "additionalProperties": place}),
            vector_text=maybe(VECTOR),
            digest=maybe(HASH),
            here_text=maybe(VECTOR),
            digest_here=maybe(HASH),
            age_s=maybe(NUMBER),
            behind=many(
                shape(
                    "A log that it has not read to its end.",
                    cluster=TEXT,
                    events=maybe(COUNT),
                    seconds=maybe(NUMBER),
                )
            ),
            compared=maybe(
                shape("Two digests.", vector_text=VECTOR, agrees=FLAG, age_s=NUMBER),
            ),
        ),
        "Agreement": shape(
            "All clusters side by side, this one first. agrees: all of them do.",
            cluster=TEXT,
            vector_text=VECTOR,
            digest=HASH,
            agrees=FLAG,
            clusters=many(ref("Standpoint")),
        ),
    }


def _events() -> Json:
    known = ", ".join(f"`io.meshd.{kind}`" for kind in EventType)
    event = shape(
        "An event as CloudEvents 1.0 has it. data: the whole new value without its defaults; null"
        " for a removal (`protocols/events/`).",
        specversion={"const": "1.0"},
        id=VECTOR | {"description": "The event's position."},
        source=TEXT,
        type=TEXT | {"description": f"{known}, or one that this version doesn't know."},
        subject=TEXT | {"description": "What it is about."},
        time=TIME,
        datacontenttype={"const": "application/json"},
        meshdcluster=TEXT,
        meshdseq=COUNT,
        meshdactor=TEXT,
        data={},
    )
    return {
        "CloudEvent": event,
        "EventPage": shape(
            "Events of one log. next: the `after` of the next page; null at the log's end.",
            items=many(ref("CloudEvent")),
            next=maybe(COUNT),
        ),
    }


def _reach() -> Json:
    policy: Json = {"namespace": TEXT, "name": TEXT, "origin": ref("Origin")}
    ports: Json = {"ports": many(TEXT), "conditional": many(TEXT)}
    through = shape(
        "Ports like `TCP/80`, `TCP/8000-8080`, `UDP`, `all`. conditional: with those that only"
        " others can judge (HTTP, named ports); empty if there are none.",
        **ports,
    )
    return {
        "Party": shape(
            "One end of a connection: an identity, or an address or a name outside.",
            cluster=maybe(TEXT),
            number=maybe(NUMBER_OF_IDENTITY),
            labels=LABELS,
            address=maybe(TEXT),
            name=maybe(TEXT),
        ),
        "PolicySide": shape(
            "What the policies of one cluster say. policies: those that isolate the identity."
            " rule: the one that allows, with what must hold besides.",
            direction=words(*Direction),
            cluster=TEXT,
            verdict=words(*Permission),
            why=TEXT,
            policies=many(shape("A policy.", **policy)),
            rule=maybe(
                shape(
                    "A rule.",
                    **policy,
                    direction=words(*Direction),
                    index=COUNT,
                    conditions=many(TEXT),
                )
            ),
        ),
        "PolicyCheck": timed(
            shape(
                "Whether one may talk to another. conditional: only others can judge; unknown:"
                " nothing is known of a cluster. stale: whose policies may be others by now.",
                verdict=words(*Permission),
                **{"from": many(ref("Party"))},
                to=many(ref("Party")),
                protocol=words(*Transport),
                port=COUNT,
                sides=many(ref("PolicySide")),
                notes=many(TEXT),
                stale=many(TEXT),
            )
        ),
        "IdentityClass": shape(
            "Identities that no policy can tell apart: the first numbers of count, and the labels"
            " of the first.",
            cluster=TEXT,
            numbers=many(NUMBER_OF_IDENTITY),
            count=COUNT,
            labels=LABELS,
        ),
        "PolicyMatrix": shape(
            "Rows of the matrix. next: the `after` of the next page.",
            as_of=maybe(VECTOR),
            unknown=many(TEXT),
            sources=COUNT,
            destinations=COUNT,
            items=many(
                shape(
                    "What one may reach of another.",
                    **{"from": ref("IdentityClass")},
                    to=ref("IdentityClass"),
                    **ports,
                )
            ),
            next=maybe(COUNT),
        ),
        "ReachEffect": shape(
            "What would change about who may talk to whom. count: all that was found; complete:"
            " whether all pairs were looked at.",
            changes=many(
                shape(
                    "A pair, before and after; who isn't there reaches nothing.",
                    **{"from": ref("IdentityClass")},
                    to=ref("IdentityClass"),
                    old=through,
                    new=through,
                )
            ),
            count=COUNT,
            complete=FLAG,
        ),
    }


def _rest() -> Json:
    place = shape("A place in a log.", log_id=LOG_ID, seq=COUNT)
    return {
        "Etcd": shape(
            "The own etcd.",
            reachable=FLAG,
            reason=TEXT,
            version=maybe(TEXT),
            db_size_bytes=maybe(COUNT),
        ),
        "LogItem": shape(
            "A log in the own etcd: the events from first_seq to last_seq, and a snapshot.",
            log=TEXT,
            log_id=LOG_ID,
            first_seq=COUNT,
            last_seq=COUNT,
            snapshot_seq=maybe(COUNT),
            snapshot_items=maybe(COUNT),
            snapshot_parts=maybe(COUNT),
        ),
        "LogList": shape("All logs.", items=many(ref("LogItem"))),
        "Leader": shape(
            "The meshd of this cluster that does its chores. self: it is the one that answers.",
            self=FLAG,
            host=TEXT,
            pid=COUNT,
            api=TEXT,
        ),
        "Mqtt": shape(
            "Publishing to an MQTT broker, by this meshd. published: the last event that the broker"
            " acknowledged; null where another one publishes. reason: what is wrong or refused.",
            phase=words(*PublishPhase),
            broker=TEXT,
            reason=TEXT,
            published=maybe(TEXT),
            behind_events=maybe(COUNT),
        ),
        "Status": shape(
            "Everything at a glance. vector: in the positions that all clusters share (those of"
            " export logs). events_after: the same moment in the logs whose events are told here."
            " digest: null while the own log is read on, since vector is of its last end then.",
            cluster=TEXT,
            id=COUNT,
            version=TEXT,
            ready=FLAG,
            reasons=many(TEXT),
            vector={"type": "object", "additionalProperties": place},
            vector_text=VECTOR,
            events_after=VECTOR,
            digest=maybe(HASH),
            local=maybe(shape("The local log's end.", log_id=LOG_ID, seq=COUNT, hash=HASH)),
            exports=many(
                shape(
                    "An export log's end. written: false if nothing is offered to it any more.",
                    audience=TEXT,
                    written=FLAG,
                    log_id=LOG_ID,
                    seq=COUNT,
                    hash=HASH,
                )
            ),
            peers=many(ref("Peer")),
            etcd=ref("Etcd"),
            leader=maybe(ref("Leader")),
            mqtt=maybe(ref("Mqtt")),
            uptime_s=NUMBER,
        ),
        "Alive": shape("It lives.", alive={"const": True}),
        "Readiness": shape("Whether it is ready.", ready=FLAG, reasons=many(TEXT)),
        "Problem": shape(
            "RFC 9457. problems: all that is wrong with the input, each with its place and remedy.",
            type={"type": "string", "format": "uri"},
            title=TEXT,
            status={"type": "integer", "minimum": 400, "maximum": 599},
            detail=TEXT,
            instance=TEXT,
            problems=many(shape("One of them.", where=TEXT, what=TEXT, remedy=TEXT)),
        ),
    }
