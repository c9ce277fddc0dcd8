"""Kubernetes' workloads, read as the identities of their pods.

For: Deployment, StatefulSet, DaemonSet, ReplicaSet, Job, CronJob and Pod, so that policies find
whom they mean without hand work. Not for: what else such a manifest says (images, replicas, …),
which means nothing here. Invariant: workloads whose pods have the same labels in the same namespace
are one identity.

An identity is the labels of the pods and, by the label `meshd.io/namespace`, their namespace. What
differs from one pod of a workload to the next is left out, and named: each would else have its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from meshd.core.document import Fields, shown
from meshd.core.kubernetes import Reading, Skip
from meshd.model.command import AllocateIdentity
from meshd.model.identity import Identity
from meshd.model.ids import is_dns_name
from meshd.model.policy import NAMESPACE_LABEL, NAMESPACE_LABELS

TEMPLATE_PATHS: Mapping[tuple[str, str], Sequence[str]] = {
    ("apps/v1", "Deployment"): ("spec", "template"),
    ("apps/v1", "StatefulSet"): ("spec", "template"),
    ("apps/v1", "DaemonSet"): ("spec", "template"),
    ("apps/v1", "ReplicaSet"): ("spec", "template"),
    ("batch/v1", "Job"): ("spec", "template"),
    ("batch/v1", "CronJob"): ("spec", "jobTemplate", "spec", "template"),
    ("v1", "Pod"): (),
}
"""The kinds, and where in each its pods are described."""
WORKLOADS = frozenset(kind for _, kind in TEMPLATE_PATHS)
PER_POD_LABELS = frozenset(
    {
        "pod-template-hash",
        "pod-template-generation",
        "controller-revision-hash",
        "controller-uid",
        "job-name",
        "statefulset.kubernetes.io/pod-name",
        "apps.kubernetes.io/pod-index",
        "batch.kubernetes.io/controller-uid",
        "batch.kubernetes.io/job-name",
        "batch.kubernetes.io/job-completion-index",
    }
)
"""Labels that Kubernetes itself sets on pods, and that differ within one workload."""


def read_workload(document: Fields, namespace: str, name: str) -> Reading:
    """Read a workload; of the kinds of TEMPLATE_PATHS."""
    if not is_dns_name(name):
        document.problem("metadata.name", f"{shown(name)} is not a DNS name", "rename it")
    template = document
    for step in TEMPLATE_PATHS[document.text("apiVersion"), document.text("kind")]:
        template = template.map(step)
    if template.map("spec").data.get("hostNetwork") is True:
        return Skip("its pods have their nodes' addresses (hostNetwork): no policy holds for them")
    said = template.map("metadata").map("labels")
    for label in said.data:
        if label == NAMESPACE_LABEL or label.startswith(NAMESPACE_LABELS):
            what = "is for meshd to say: it stands for the namespace"
            said.problem(label, what, "leave it out")
    left_out = sorted(PER_POD_LABELS & said.data.keys())
    labels = {label: said.data[label] for label in said.data if label not in PER_POD_LABELS}
    data = {"labels": {**labels, NAMESPACE_LABEL: namespace}}
    identity = document.value(Identity, data, {"labels": said.path})
    if identity is None:
        return None
    document.report.note("read as an identity: the labels of its pods and its namespace")
    if left_out:
        document.report.note(f"left out, since they differ from pod to pod: {', '.join(left_out)}")
    return AllocateIdentity(identity.labels)
