"""The shop as manifests: one file of YAML per cluster, in several dialects.

For: what `meshd apply -f` is given, for people to read and try. Not for: the shop itself
(`catalog`). Invariant: the same offers give the same text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from meshd.demo.catalog import NAMESPACE, Dialect, Offer, Spot
from meshd.demo.places import SHOP_PORT, Place

Document = dict[str, Any]

SERVICE_PORT = 80


def manifest(place: Place, offers: Sequence[Offer], *, ready: bool = True) -> str:
    """Everything that one cluster has. ready: False says of every endpoint that it isn't."""
    documents: list[Document] = []
    for offer in offers:
        write = _ours if offer.dialect is Dialect.MESHD else _kubernetes
        documents += write(place, offer, ready=ready)
    return yaml.safe_dump_all(documents, sort_keys=False)


def _ours(place: Place, offer: Offer, *, ready: bool) -> list[Document]:
    service = {
        "apiVersion": "meshd.io/v1",
        "kind": "Service",
        "metadata": {"namespace": NAMESPACE, "name": offer.service, "cluster": offer.cluster},
        "spec": {
            "ports": [{"name": "http", "port": SERVICE_PORT, "app_protocol": "http"}],
            "global": offer.is_global,
            "shared": offer.is_shared,
            "affinity": str(offer.affinity),
        },
    }
    endpoints = {
        "apiVersion": "meshd.io/v1",
        "kind": "Endpoints",
        "metadata": {"namespace": NAMESPACE, "name": offer.service},
        "spec": {
            "endpoints": [our_endpoint(place, spot, ready=ready) for spot in offer.spots],
        },
    }
    return [service, endpoints]


def our_endpoint(place: Place, spot: Spot, *, ready: bool = True) -> Document:
    """One endpoint in our own words."""
    return {
        "name": spot.name,
        "address": place.endpoint_address(spot.host),
        "ports": [{"name": "http", "port": place.port(SHOP_PORT)}],
        "weight": spot.weight,
        "ready": spot.ready and ready,
    }


def _kubernetes(place: Place, offer: Offer, *, ready: bool) -> list[Document]:
    prefix = "service.cilium.io" if offer.dialect is Dialect.CILIUM else "meshd.io"
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "namespace": NAMESPACE,
            "name": offer.service,
            "annotations": {
                f"{prefix}/global": str(offer.is_global).lower(),
                f"{prefix}/shared": str(offer.is_shared).lower(),
                f"{prefix}/affinity": str(offer.affinity),
            },
        },
        "spec": {
            "selector": {"app": offer.service},
            "ports": [
                {
                    "name": "http",
                    "port": SERVICE_PORT,
                    "targetPort": place.port(SHOP_PORT),
                    "appProtocol": "http",
                }
            ],
        },
    }
    slice_ = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": NAMESPACE,
            "name": slice_name(offer),
            "labels": {"kubernetes.io/service-name": offer.service},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": place.port(SHOP_PORT), "protocol": "TCP"}],
        "endpoints": [
            {
                "addresses": [place.endpoint_address(spot.host)],
                "conditions": {"ready": spot.ready and ready},
                "nodeName": f"{offer.cluster}-node-1",
            }
            for spot in offer.spots
        ],
    }
    return [service, slice_]


def slice_name(offer: Offer) -> str:
    """What Kubernetes would call the slice: the service's name and something random."""
    return f"{offer.service}-{offer.cluster[:2]}x7f"
