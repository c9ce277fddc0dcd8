"""Setting up users, roles and authentication in a real etcd.

For: reading what an etcd has, carrying out the steps that `access` decided on, and looking whether
they held. Not for: deciding. Invariants: authentication is switched on last, when everybody who
needs it can log in; a second run finds nothing to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from meshd.edges.etcd.access import (
    ROOT,
    Access,
    Action,
    Found,
    Login,
    PeerAccess,
    Permission,
    Step,
    Wanted,
    holes,
    plan,
    remedy,
    wanted,
)
from meshd.edges.etcd.connection import Connection
from meshd.edges.etcd.kv import EtcdKv
from meshd.edges.etcd.pb import etcd_pb2 as pb
from meshd.edges.etcd.target import EtcdTarget
from meshd.model.errors import DeniedError, FatalError
from meshd.model.keyspace import Keyspace

_AUTH = "/etcdserverpb.Auth/"
_ACCESS_OF = {
    pb.Permission.READ: Access.READ,
    pb.Permission.WRITE: Access.WRITE,
    pb.Permission.READWRITE: Access.READWRITE,
}
_TYPE_OF = {access: kind for kind, access in _ACCESS_OF.items()}

_Response = TypeVar("_Response")


@dataclass(frozen=True, slots=True)
class Request:
    """Whom to let in. passwords: by user, root's among them; who has none here keeps what it has.

    by_certificate: new users without a password are recognised by their certificate's name.
    """

    keyspace: Keyspace
    own_user: str
    peers: tuple[PeerAccess, ...] = ()
    passwords: Mapping[str, str] = field(default_factory=dict, repr=False)
    by_certificate: bool = False


@dataclass(frozen=True, slots=True)
class Secured:
    """What was needed, what this etcd lets through all the same, and what helps against that."""

    steps: tuple[Step, ...]
    version: str
    holes: tuple[str, ...]
    remedy: str


async def secure(target: EtcdTarget, request: Request, *, dry_run: bool = False) -> Secured:
    """Make the etcd as it should be; returns the steps that that took.

    target: the etcd, whatever user it names; root's password is in the request. Raises
    RejectedError for what can't be asked for, DeniedError without root's rights.
    """
    goal = wanted(request.keyspace, request.own_user, request.peers, _logins(request))
    password = request.passwords.get(ROOT, "")
    as_root = replace(target, username=ROOT if password else "", password=password)
    connection = Connection(as_root)
    try:
        admin = _Admin(connection, request.passwords)
        steps = plan(goal, await admin.look(goal))
        version = (await EtcdKv(connection).status()).version
        if not dry_run:
            for step in steps:
                await admin.do(step)
            left = plan(goal, await admin.look(goal)) if steps else ()
            if left:
                what = "; ".join(f"{step.action} {step.subject} {step.detail}" for step in left)
                raise FatalError(f"etcd took every step and yet lacks: {what}; run it again")
        return Secured(steps, version, holes(version), remedy(version))
    finally:
        await connection.close()


def _logins(request: Request) -> dict[str, Login]:
    logins = dict.fromkeys(request.passwords, Login.PASSWORD)
    if request.by_certificate:
        for name in (request.own_user, *(peer.user for peer in request.peers)):
            logins.setdefault(name, Login.CERTIFICATE)
    return logins


class _Admin:
    """etcd's administration of users, as root or before there is authentication."""

    def __init__(self, connection: Connection, passwords: Mapping[str, str]) -> None:
        self._connection = connection
        self._passwords = passwords

    async def look(self, goal: Wanted) -> Found:
        """Read what concerns us."""
        is_enforced = await self._log_in()
        try:
            users = await self._ask("UserList", pb.AuthUserListRequest(), pb.AuthUserListResponse)
        except DeniedError as error:
            raise DeniedError(
                f"authentication is on: give root's password with --root-password-file ({error})"
            ) from error
        roles = await self._ask("RoleList", pb.AuthRoleListRequest(), pb.AuthRoleListResponse)
        names = [user.name for user in goal.users if user.name in users.users]
        return Found(
            is_enforced,
            {role: await self._permissions(role) for role in goal.roles if role in roles.roles},
            {name: await self._roles(name) for name in names},
            frozenset([name for name in names if is_enforced and await self._is_right(name)]),
        )

    async def do(self, step: Step) -> None:
        """Carry out one step. They come one after another, so none is lost among others."""
        method, request, response = self._request(step)
        await self._ask(method, request, response, writes=True)

    async def _log_in(self) -> bool:
        """Tell whether authentication is on. etcd 3.4 has no AuthStatus; logging in tells too."""
        deadline_s = asyncio.get_running_loop().time() + self._connection.call_timeout_s
        endpoint = await self._connection.pick(deadline_s)
        # An empty token is that of before it was switched on.
        try:
            return bool(await self._connection.token(endpoint, deadline_s, stale=""))
        except DeniedError as error:
            raise DeniedError(f"root can't log in, is its password right? {error}") from error

    async def _permissions(self, role: str) -> frozenset[Permission]:
        request = pb.AuthRoleGetRequest(role=role)
        found = await self._ask("RoleGet", request, pb.AuthRoleGetResponse)
        return frozenset(
            Permission(one.key, one.range_end, _ACCESS_OF[one.permType]) for one in found.perm
        )

    async def _roles(self, user: str) -> frozenset[str]:
        request = pb.AuthUserGetRequest(name=user)
        return frozenset((await self._ask("UserGet", request, pb.AuthUserGetResponse)).roles)

    async def _is_right(self, user: str) -> bool:
        """Tell whether the user has the password that it should have."""
        if user not in self._passwords:
            return False
        request = pb.AuthenticateRequest(name=user, password=self._passwords[user])
        try:
            await self._ask("Authenticate", request, pb.AuthenticateResponse)
        except DeniedError:
            return False
        return True

    def _request(self, step: Step) -> tuple[str, object, type[Any]]:
        name, role, allowed = (
            step.subject,
            step.role,
            step.permission or Permission(b"", b"", Access.READ),
        )
        password = self._passwords.get(name, "")
        match step.action:
            case Action.ADD_ROLE:
                return "RoleAdd", pb.AuthRoleAddRequest(name=name), pb.AuthRoleAddResponse
            case Action.ALLOW:
                kind = _TYPE_OF[allowed.access]
                permission = pb.Permission(permType=kind, key=allowed.key, range_end=allowed.end)
                allow = pb.AuthRoleGrantPermissionRequest(name=name, perm=permission)
                return "RoleGrantPermission", allow, pb.AuthRoleGrantPermissionResponse
            case Action.FORBID:
                forbid = pb.AuthRoleRevokePermissionRequest(
                    role=name, key=allowed.key, range_end=allowed.end
                )
                return "RoleRevokePermission", forbid, pb.AuthRoleRevokePermissionResponse
            case Action.ADD_USER:
                options = pb.UserAddOptions(no_password=not password)
                add = pb.AuthUserAddRequest(name=name, password=password, options=options)
                return "UserAdd", add, pb.AuthUserAddResponse
            case Action.SET_PASSWORD:
                change = pb.AuthUserChangePasswordRequest(name=name, password=password)
                return "UserChangePassword", change, pb.AuthUserChangePasswordResponse
            case Action.GRANT:
                grant = pb.AuthUserGrantRoleRequest(user=name, role=role)
                return "UserGrantRole", grant, pb.AuthUserGrantRoleResponse
            case Action.TAKE:
                take = pb.AuthUserRevokeRoleRequest(name=name, role=role)
                return "UserRevokeRole", take, pb.AuthUserRevokeRoleResponse
            case Action.ENFORCE:
                return "AuthEnable", pb.AuthEnableRequest(), pb.AuthEnableResponse

    async def _ask(
        self, method: str, request: object, response: type[_Response], *, writes: bool = False
    ) -> _Response:
        return await self._connection.unary(_AUTH + method, request, response, writes=writes)
