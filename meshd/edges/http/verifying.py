"""`/v1/verify`: the vectors and digests of all clusters side by side.

For: the report as JSON. Not for: comparing (`core.agreement`). Invariant: it is about one moment of
this cluster, and about what each other one last said.
"""

from __future__ import annotations

from aiohttp import web

from meshd.core.agreement import Lag, Standpoint, Verdict
from meshd.edges.http.answers import json_answer, own_state
from meshd.edges.http.limits import NODE
from meshd.edges.http.requests import check_query
from meshd.edges.http.wire import Json, vector_fields
from meshd.model.ids import format_vector
from meshd.runtime.agreement import Compared, Report


def routes() -> list[web.AbstractRouteDef]:
    """The path that is served here."""
    return [web.get("/v1/verify", verify)]


async def verify(request: web.Request) -> web.Response:
    """Compare all clusters."""
    check_query(request)
    node = request.app[NODE]
    own_state(node)
    report = await node.agreement.report()
    return json_answer(
        {
            "cluster": report.here.own,
            "vector_text": format_vector(report.here.vector),
            "digest": report.here.digest,
            "agrees": all(one.verdict is Verdict.AGREES for one in report.clusters),
            "clusters": [_standpoint(one, report) for one in report.clusters],
        }
    )


def _standpoint(one: Standpoint, report: Report) -> Json:
    vector = one.vector
    return {
        "name": one.cluster,
        "self": one.cluster == report.here.own,
        "verdict": one.verdict,
        "reason": one.reason,
        "vector": None if vector is None else vector_fields(vector),
        "vector_text": None if vector is None else format_vector(vector),
        "digest": one.digest,
        "here_text": one.here_text,
        "digest_here": one.digest_here,
        "age_s": None if one.age_s is None else round(one.age_s, 3),
        "behind": [_lag(lag) for lag in one.lags],
        "compared": _compared(report.compared.get(one.cluster), report.now_s),
    }


def _lag(lag: Lag) -> Json:
    seconds = None if lag.seconds is None else round(lag.seconds, 3)
    return {"cluster": lag.cluster, "events": lag.events, "seconds": seconds}


def _compared(compared: Compared | None, now_s: float) -> Json | None:
    if compared is None:
        return None
    return {
        "vector_text": compared.comparison.vector_text,
        "agrees": compared.comparison.agrees,
        "age_s": round(now_s - compared.at_s, 3),
    }
