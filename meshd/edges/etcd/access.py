"""Who may do what in one etcd, and what must change until it is so.

For: the users, roles and permissions of a meshd and its peers, and the steps from what an etcd has
to what it should have. Not for: doing them (`secure`). Invariants: pure; no step holds a password;
a peer's user may read the descriptor and its audience's export log, and nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from meshd.model.errors import Problem, RejectedError
from meshd.model.keyspace import DEFAULT_AUDIENCE, DEFAULT_PREFIX, Keyspace, prefix_end

ROOT = "root"
"""etcd's own name for the user and the role that may do everything."""
OWN_USER = "meshd"
"""The daemon's user where the settings name none."""


class Access(StrEnum):
    """What a permission allows."""

    READ = "read"
    WRITE = "write"
    READWRITE = "readwrite"


@dataclass(frozen=True, slots=True, order=True)
class Permission:
    """Access to one key, or with `end` to the range [key, end)."""

    key: bytes
    end: bytes
    access: Access

    def __str__(self) -> str:
        key = self.key.decode(errors="replace")
        if not self.end:
            return f"{self.access} {key}"
        if self.end == prefix_end(self.key):
            return f"{self.access} {key}*"
        return f"{self.access} [{key}, {self.end.decode(errors='replace')})"


class Login(StrEnum):
    """How a user shows who it is."""

    PASSWORD = "password"  # noqa: S105 no password
    CERTIFICATE = "certificate name"
    KEPT = "as before"


@dataclass(frozen=True, slots=True)
class PeerAccess:
    """A peer that may read: its user's name, and the audience it belongs to."""

    user: str
    audience: str = DEFAULT_AUDIENCE


@dataclass(frozen=True, slots=True)
class User:
    """A user as it should be. is_exact: roles beside `role` are taken away."""

    name: str
    role: str
    login: Login
    is_exact: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """How the etcd should be."""

    roles: Mapping[str, frozenset[Permission]]
    users: tuple[User, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """How the etcd is. confirmed: users who can log in with the password that they should have."""

    is_enforced: bool
    roles: Mapping[str, frozenset[Permission]] = field(default_factory=dict)
    users: Mapping[str, frozenset[str]] = field(default_factory=dict)
    confirmed: frozenset[str] = frozenset()


Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Hole:
    """A way around permissions that etcd once had. fixed: by release line, the first without it.

    Lines that are older than all of these have it for ever, newer ones never had it.
    """

    what: str
    fixed: tuple[Version, ...]


HOLES = (
    Hole(
        "any user reads and writes every key by a nested transaction (CVE-2026-33343)",
        ((3, 4, 42), (3, 5, 28), (3, 6, 9)),
    ),
    Hole(
        "anybody compacts history and makes leases (CVE-2026-33413)",
        ((3, 4, 42), (3, 5, 28), (3, 6, 9)),
    ),
    Hole(
        "who may read a key may watch all keys after it (CVE-2026-73499)",
        ((3, 5, 33), (3, 6, 14), (3, 7, 1)),
    ),
    Hole(
        "while its space is used up any user deletes keys and ends authentication (#22386)",
        ((3, 6, 0),),
    ),
)
"""Against these no role helps, only another etcd, or peers that don't get at this one."""

_GATE = "or let peers in through meshd's gate only (gate.listen), which none of this gets past"


def holes(version: str) -> tuple[str, ...]:
    """What this etcd lets through in spite of all permissions."""
    numbers = _numbers(version)
    if numbers is None:
        return (f"nobody knows what etcd {version!r} lets through",)
    return tuple(hole.what for hole in HOLES if _has(numbers, hole))


def remedy(version: str) -> str:
    """What helps against all holes of this version at once; '' where there are none."""
    if not holes(version):
        return ""
    numbers = _numbers(version)
    without = min(
        fixed
        for hole in HOLES
        for fixed in hole.fixed
        if (numbers is None or fixed > numbers) and not any(_has(fixed, other) for other in HOLES)
    )
    return f"use etcd {'.'.join(map(str, without))} or newer, {_GATE}"


def _numbers(version: str) -> Version | None:
    parts = version.partition("-")[0].partition("+")[0].split(".")
    if len(parts) != len(HOLES[0].fixed[0]) or not all(part.isdecimal() for part in parts):
        return None
    major, minor, patch = map(int, parts)
    return major, minor, patch


def _has(version: Version, hole: Hole) -> bool:
    for fixed in hole.fixed:
        if version[:2] <= fixed[:2]:
            return version < fixed
    return False


class Action(StrEnum):
    """What a step does."""

    ADD_ROLE = "add role"
    ALLOW = "allow"
    FORBID = "forbid"
    ADD_USER = "add user"
    SET_PASSWORD = "set password"  # noqa: S105 no password
    GRANT = "grant role"
    TAKE = "take role away"
    ENFORCE = "switch authentication on"


@dataclass(frozen=True, slots=True)
class Step:
    """One request to etcd. subject: the role or user. detail: for people."""

    action: Action
    subject: str
    detail: str = ""
    permission: Permission | None = None
    role: str = ""


def wanted(
    keyspace: Keyspace, own_user: str, peers: Collection[PeerAccess], logins: Mapping[str, Login]
) -> Wanted:
    """Who should be able to do what. logins: how each user logs in; who is missing: as before."""
    _check_names(own_user, [peer.user for peer in peers])
    own = _role_name("meshd-own", keyspace)
    everything = f"{keyspace.prefix}/".encode()
    roles = {own: frozenset({_prefix(everything, Access.READWRITE)})}
    users = [
        User(ROOT, ROOT, logins.get(ROOT, Login.KEPT)),
        User(own_user, own, logins.get(own_user, Login.KEPT)),
    ]
    for peer in peers:
        reader = _role_name(f"meshd-read-{peer.audience}", keyspace)
        roles[reader] = frozenset(
            {
                Permission(keyspace.descriptor, b"", Access.READ),
                _prefix(keyspace.export(peer.audience).root, Access.READ),
            }
        )
        login = logins.get(peer.user, Login.KEPT)
        users.append(User(peer.user, reader, login, is_exact=True))
    return Wanted(roles, tuple(users))


def plan(wanted: Wanted, found: Found) -> tuple[Step, ...]:
    """The steps from one to the other, in an order that never opens more than is wanted.

    Raises RejectedError if a new user has no way to log in.
    """
    problems = tuple(
        Problem(f"user {user.name}", "is new and can't log in", _remedy(user.name))
        for user in wanted.users
        if user.name not in found.users and user.login is Login.KEPT
    )
    if problems:
        raise RejectedError(problems)
    steps = [*_role_steps(wanted, found), *_user_steps(wanted, found)]
    if not found.is_enforced:
        steps.append(Step(Action.ENFORCE, "etcd", "from now on nobody gets in without a user"))
    return tuple(steps)


def _role_steps(wanted: Wanted, found: Found) -> Iterator[Step]:
    for name, permissions in wanted.roles.items():
        if name not in found.roles:
            yield Step(Action.ADD_ROLE, name)
        present = found.roles.get(name, frozenset())
        ranges = {(permission.key, permission.end) for permission in permissions}
        for permission in sorted(present - permissions):
            # etcd has one permission per range: allowing it anew replaces what it was.
            if (permission.key, permission.end) not in ranges:
                yield Step(Action.FORBID, name, str(permission), permission)
        for permission in sorted(permissions - present):
            yield Step(Action.ALLOW, name, str(permission), permission)


def _user_steps(wanted: Wanted, found: Found) -> Iterator[Step]:
    for user in wanted.users:
        if user.name not in found.users:
            yield Step(Action.ADD_USER, user.name, f"logs in by {user.login}")
        elif user.login is Login.PASSWORD and user.name not in found.confirmed:
            yield Step(Action.SET_PASSWORD, user.name)
        present = found.users.get(user.name, frozenset())
        if user.is_exact:
            for role in sorted(present - {user.role}):
                yield Step(Action.TAKE, user.name, role, role=role)
        if user.role not in present:
            yield Step(Action.GRANT, user.name, user.role, role=user.role)


def _prefix(prefix: bytes, access: Access) -> Permission:
    return Permission(prefix, prefix_end(prefix), access)


def _role_name(name: str, keyspace: Keyspace) -> str:
    """Two keyspaces in one etcd have roles of their own."""
    return name if keyspace.prefix == DEFAULT_PREFIX else f"{name}@{keyspace.prefix}"


def _check_names(own_user: str, peers: Collection[str]) -> None:
    problems = []
    if own_user == ROOT:
        problems.append(
            Problem("etcd.username", "is root", f"give meshd a user of its own, like {OWN_USER}")
        )
    taken = {ROOT, own_user}
    for name in peers:
        if name in taken:
            problems.append(Problem("peer", f"{name} is taken by another user", "name each once"))
        taken.add(name)
    if problems:
        raise RejectedError(tuple(problems))


def _remedy(user: str) -> str:
    if user == ROOT:
        return "give --root-password-file"
    return "give a password file, or --no-password for users by certificate name"
