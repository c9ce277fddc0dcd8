"""The file that describes a mesh which somebody runs: where it is, and how it may be broken.

For: reading it, and saying everything that is wrong with it at once. Not for: running its commands
(`commanding`). Invariants: nothing can be broken that can't be undone; nothing but what `allowed`
lists is ever a target; a command is a list of words, never a shell's line, so that no value can
become another command.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from chaos.mesh.shape import Kind, NotPossibleError

COMMAND_TIMEOUT_S: Final = 30.0
"""Of one command, as ssh or kubectl need; a command that hangs must not hang the run."""
START_TIMEOUT_S: Final = 120.0
"""Until what was started answers: a pod may have to be scheduled first."""
TIMEOUT_MAX_S: Final = 600.0
FILE_BYTES_MAX: Final = 1024 * 1024
"""A thousand clusters take some 300 kB."""

_PLACEHOLDER: Final = re.compile(r"\{([a-z][a-z0-9_]*)\}")
"""Other braces, as in `jsonpath={.items}`, are left alone."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]
"""As a host's: none can be taken for an option of a command."""
Values = dict[Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")], str]


class MeshFileError(NotPossibleError):
    """The file can't be used. problems: each says where, what, and what to do."""

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        lines = "".join(f"\n  {problem}" for problem in problems)
        super().__init__(f"{path} can't be used:{lines}")


class Verb(StrEnum):
    """What a command does."""

    KILL = "kill"
    STOP = "stop"
    START = "start"
    FREEZE = "freeze"
    THAW = "thaw"
    CUT = "cut"
    HEAL = "heal"
    CUT_ONE_WAY = "cut_one_way"
    HEAL_ONE_WAY = "heal_one_way"


UNDONE_BY: Final[Mapping[Verb, Verb]] = {
    Verb.KILL: Verb.START,
    Verb.STOP: Verb.START,
    Verb.FREEZE: Verb.THAW,
    Verb.CUT: Verb.HEAL,
    Verb.CUT_ONE_WAY: Verb.HEAL_ONE_WAY,
}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class ServerCommands(_Part):
    """How a server is broken and mended; '' means that it can't be."""

    kill: str = ""
    stop: str = ""
    start: str = ""
    freeze: str = ""
    thaw: str = ""


class LinkCommands(_Part):
    """How what two clusters send to each other is lost, and arrives again. `cut` is of both
    directions; `cut_one_way`, of what `{cluster}` sends to `{peer}`.
    """

    cut: str = ""
    heal: str = ""
    cut_one_way: str = ""
    heal_one_way: str = ""


class Commands(_Part):
    """All commands."""

    meshd: ServerCommands = ServerCommands()
    etcd: ServerCommands = ServerCommands()
    broker: ServerCommands = ServerCommands()
    link: LinkCommands = LinkCommands()


class ServerEntry(_Part):
    """A process. values: what its commands name in braces."""

    name: Name
    values: Values = {}


class MeshdEntry(ServerEntry):
    """A meshd. url: of its REST API. token_file, token_env: where the token is that may read and
    write, if one is needed. ca_file: who vouches for it, if that isn't the system's authorities.
    """

    url: str
    token_file: Path | None = None
    token_env: str = ""
    ca_file: Path | None = None

    @property
    def address(self) -> str:
        """`host:port`."""
        parts = urlsplit(self.url)
        return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"

    def token(self) -> str:
        """The token, read anew; raises OSError."""
        if self.token_file is not None:
            return self.token_file.read_text(encoding="utf-8").strip()
        return os.environ.get(self.token_env, "") if self.token_env else ""


class ClusterEntry(_Part):
    """A cluster. id: as in its settings. values: for the commands of all its servers and links."""

    name: Name
    id: Annotated[int, Field(ge=1)]
    values: Values = {}
    meshds: Annotated[tuple[MeshdEntry, ...], Field(min_length=1)]
    etcds: tuple[ServerEntry, ...] = ()
    brokers: tuple[ServerEntry, ...] = ()

    def servers(self) -> Iterator[tuple[Kind, ServerEntry]]:
        """All its processes."""
        for kind, entries in (
            (Kind.MESHD, self.meshds),
            (Kind.ETCD, self.etcds),
            (Kind.BROKER, self.brokers),
        ):
            for entry in entries:
                yield kind, entry


class Allowed(_Part):
    """What may be broken. servers: as `west/meshd-1`. links: pairs of clusters."""

    servers: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()


class MeshFile(_Part):
    """The whole file."""

    clusters: Annotated[tuple[ClusterEntry, ...], Field(min_length=1)]
    allowed: Allowed = Allowed()
    commands: Commands = Commands()
    command_timeout_s: Annotated[float, Field(gt=0, le=TIMEOUT_MAX_S)] = COMMAND_TIMEOUT_S
    start_timeout_s: Annotated[float, Field(gt=0, le=TIMEOUT_MAX_S)] = START_TIMEOUT_S

    def cluster(self, name: str) -> ClusterEntry | None:
        """One of the clusters."""
        return next((one for one in self.clusters if one.name == name), None)

    def server(self, name: str) -> tuple[ClusterEntry, Kind, ServerEntry] | None:
        """One of the servers, as `west/meshd-1`."""
        cluster = self.cluster(name.partition("/")[0])
        for kind, entry in cluster.servers() if cluster is not None else ():
            if cluster is not None and f"{cluster.name}/{entry.name}" == name:
                return cluster, kind, entry
        return None

    def server_names(self) -> list[str]:
        """All servers."""
        return [f"{one.name}/{entry.name}" for one in self.clusters for _, entry in one.servers()]


@dataclass(frozen=True, slots=True)
class Target:
    """What a command is for: a server, or what lies between two clusters, in this direction."""

    cluster: str
    server: str = ""
    peer: str = ""

    def __str__(self) -> str:
        return f"{self.cluster}/{self.server}" if self.server else f"{self.cluster} > {self.peer}"

    @classmethod
    def of_server(cls, name: str) -> Self:
        """A server, as `west/meshd-1`."""
        cluster, _, server = name.partition("/")
        return cls(cluster, server=server)


def is_allowed(file: MeshFile, target: Target) -> bool:
    """Whether this may be touched."""
    if target.server:
        return str(target) in file.allowed.servers
    return any({target.cluster, target.peer} == set(pair) for pair in file.allowed.links)


def template(file: MeshFile, verb: Verb, target: Target) -> str:
    """The command as the file has it; '' if it has none."""
    if not target.server:
        return str(getattr(file.commands.link, verb, ""))
    found = file.server(str(target))
    return "" if found is None else str(getattr(getattr(file.commands, found[1]), verb, ""))


def argv(file: MeshFile, verb: Verb, target: Target) -> tuple[str, ...]:
    """The command's words; raises KeyError for a name in braces that nothing is known of."""
    known = _values(file, target)
    words = shlex.split(template(file, verb, target))
    return tuple(_PLACEHOLDER.sub(lambda match: known[match[1]], word) for word in words)


def _values(file: MeshFile, target: Target) -> dict[str, str]:
    """What stands for the names in braces."""
    known = {"cluster": target.cluster}
    cluster, peer = file.cluster(target.cluster), file.cluster(target.peer)
    found = file.server(str(target)) if target.server else None
    known |= cluster.values if cluster is not None else {}
    if found is not None:
        known |= {"server": target.server} | found[2].values
    if peer is not None:
        known |= {"peer": peer.name}
        known |= {f"peer_{name}": value for name, value in peer.values.items()}
    return known


def read_mesh_file(path: Path) -> MeshFile:
    """Read and check it; raises MeshFileError with all problems."""
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise MeshFileError(
                path, [f"it is larger than {FILE_BYTES_MAX} bytes; is it the file?"]
            )
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MeshFileError(path, [f"it can't be read: {error.strerror}"]) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MeshFileError(path, [f"it isn't YAML: {error}"]) from None
    if not isinstance(tree, dict):
        what = "it holds no mapping; see chaos/README.md, 'A mesh that you run'"
        raise MeshFileError(path, [what])
    try:
        file = MeshFile.model_validate(tree)
    except ValidationError as error:
        raise MeshFileError(path, _said_of(error)) from None
    file = _beside(file, path.parent)
    problems = [*_names(file), *_urls(file), *_allowed(file), *_pairs(file), *_templates(file)]
    if problems:
        raise MeshFileError(path, problems)
    return file


def _said_of(error: ValidationError) -> list[str]:
    said = []
    for one in error.errors():
        where = ".".join(str(part) for part in one["loc"])
        remedy = "take it out, or look for a typing error" if "extra" in one["type"] else ""
        said.append(f"{where}: {one['msg']}" + (f"; {remedy}" if remedy else ""))
    return said


def _beside(file: MeshFile, folder: Path) -> MeshFile:
    """Files are named as seen from the file that names them."""

    def moved(entry: MeshdEntry) -> MeshdEntry:
        paths = {
            name: folder / value
            for name in ("token_file", "ca_file")
            if (value := getattr(entry, name)) is not None
        }
        return entry.model_copy(update=paths)

    clusters = tuple(
        one.model_copy(update={"meshds": tuple(map(moved, one.meshds))}) for one in file.clusters
    )
    return file.model_copy(update={"clusters": clusters})


def _names(file: MeshFile) -> Iterator[str]:
    clusters = [one.name for one in file.clusters]
    for kind, names in (("cluster", clusters), ("server", file.server_names())):
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"clusters: {kind} {name} is there twice; give each its own name"
    ids = [one.id for one in file.clusters]
    for number in sorted({number for number in ids if ids.count(number) > 1}):
        yield f"clusters: id {number} is there twice; ids are as in each meshd's settings"


def _urls(file: MeshFile) -> Iterator[str]:
    for cluster in file.clusters:
        for entry in cluster.meshds:
            where = f"{cluster.name}/{entry.name}"
            if not re.fullmatch(r"https?://[^/?#@\s]+/?", entry.url):
                yield f"{where}: url {entry.url!r} is no address; write it like https://host:7979"
            if entry.token_file is not None and entry.token_env:
                yield f"{where}: both token_file and token_env; leave one of them out"
            if entry.token_env and entry.token_env not in os.environ:
                yield f"{where}: token_env: {entry.token_env} is not set; export it first"
            for path in (entry.token_file, entry.ca_file):
                if path is not None and not path.is_file():
                    yield f"{where}: there is no file {path}"


def _allowed(file: MeshFile) -> Iterator[str]:
    servers, clusters = file.server_names(), [one.name for one in file.clusters]
    for name in file.allowed.servers:
        if name not in servers:
            yield f"allowed.servers: there is no server {name}{_meant(name, servers)}"
    for pair in file.allowed.links:
        for name in pair:
            if name not in clusters:
                yield f"allowed.links: there is no cluster {name}{_meant(name, clusters)}"
        if pair[0] == pair[1]:
            yield f"allowed.links: {pair[0]} has no link to itself; name two clusters"


def _meant(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"


def _pairs(file: MeshFile) -> Iterator[str]:
    for part in ("meshd", "etcd", "broker", "link"):
        commands = getattr(file.commands, part)
        for breaks, mends in UNDONE_BY.items():
            if getattr(commands, breaks, "") and not getattr(commands, mends, ""):
                yield (
                    f"commands.{part}: {breaks} without {mends}; nothing is broken that can't be"
                    f" undone, so say how to {mends.replace('_', ' ')} too"
                )


def targets(file: MeshFile) -> Iterator[Target]:
    """All that is allowed; links in both directions."""
    yield from map(Target.of_server, file.allowed.servers)
    for one, other in file.allowed.links:
        yield Target(one, peer=other)
        yield Target(other, peer=one)


def _templates(file: MeshFile) -> Iterator[str]:
    """Every command of every allowed target can be put together."""
    for target in targets(file):
        for verb in Verb:
            try:
                argv(file, verb, target)
            except ValueError as error:
                yield f"the command to {verb} {target} isn't well-formed: {error}"
            except KeyError as error:
                known = ", ".join(sorted(_values(file, target)))
                yield (
                    f"the command to {verb} {target} names {{{error.args[0]}}}; known there are"
                    f" {known}; others go into its server's or cluster's `values`"
                )
