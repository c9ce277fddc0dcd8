"""What a group commit of meshd looks like to etcd, for a bare client to do the same.

For: the reference of appends. Not for: guessing: a shape is read back from what meshd itself
committed, key by key, so that it stays true when the records or the heads change. Invariant: a
transaction of a shape always succeeds, whatever others do meanwhile: its own head never changes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import grpc

from meshd.daemon.parts import Parts
from meshd.edges.etcd.pb import etcd_pb2 as pb
from meshd.model.command import Command, Submission
from meshd.model.keyspace import DEFAULT_PREFIX, SEQ_DIGITS

RAW: Final = b"/raw-of-".ljust(len(DEFAULT_PREFIX), b"_")[: len(DEFAULT_PREFIX)]
"""Before all keys of the bare client; as long as what stands before meshd's."""

TxnCall = Callable[[pb.TxnRequest], Awaitable[pb.TxnResponse]]
PutCall = Callable[[pb.PutRequest], Awaitable[pb.PutResponse]]


@dataclass(frozen=True, slots=True)
class Shape:
    """One commit. head: the key and the value that it is compared with. puts: all that it writes;
    keys that end in a seq get another in each transaction.
    """

    head: tuple[bytes, bytes]
    puts: tuple[tuple[bytes, bytes], ...]

    def begin(self) -> pb.TxnRequest:
        """Give the transaction that writes the head, before all others."""
        key, value = self.head
        return pb.TxnRequest(
            success=[pb.RequestOp(request_put=pb.PutRequest(key=key, value=value))]
        )

    def request(self, number: int) -> pb.TxnRequest:
        """Give one more transaction. number: of no other one."""
        key, value = self.head
        seq = b"%0*d" % (SEQ_DIGITS, number)
        puts = [
            pb.PutRequest(key=_numbered(name, seq), value=written) for name, written in self.puts
        ]
        return pb.TxnRequest(
            compare=[
                pb.Compare(result=pb.Compare.EQUAL, target=pb.Compare.VALUE, key=key, value=value)
            ],
            success=[pb.RequestOp(request_put=put) for put in puts],
            failure=[pb.RequestOp(request_range=pb.RangeRequest(key=puts[0].key))],
        )


def _numbered(key: bytes, seq: bytes) -> bytes:
    return key[:-SEQ_DIGITS] + seq if key[-SEQ_DIGITS:].isdigit() else key


def _raw(key: bytes) -> bytes:
    return RAW + key[len(DEFAULT_PREFIX) :]


async def shape_of(parts: Parts, commands: Sequence[Command]) -> Shape:
    """Submit them as one, and read back what etcd was given."""
    node = parts.node
    await node.writer.submit(Submission(tuple(commands), "bench"))
    head = node.projector.local_head
    assert head is not None
    local = node.keyspace.local
    keys = [local.record(head.local.seq), local.head]
    for audience, exported in head.exports.items():
        export = node.keyspace.export(audience)
        keys += [export.record(exported.seq), export.head]
    found = [(await node.kv.range(key)).kvs for key in keys]
    # An export log that nothing was ever written to has no keys.
    puts = tuple(
        (_raw(key), items[0].value) for key, items in zip(keys, found, strict=True) if items
    )
    return Shape(puts[1], puts)


def txn_call(raw: grpc.aio.Channel) -> TxnCall:
    """The bare call of a transaction."""
    call: TxnCall = raw.unary_unary(
        "/etcdserverpb.KV/Txn",
        request_serializer=pb.TxnRequest.SerializeToString,
        response_deserializer=pb.TxnResponse.FromString,
    )
    return call


def put_call(raw: grpc.aio.Channel) -> PutCall:
    """The bare call of a single put."""
    call: PutCall = raw.unary_unary(
        "/etcdserverpb.KV/Put",
        request_serializer=pb.PutRequest.SerializeToString,
        response_deserializer=pb.PutResponse.FromString,
    )
    return call


def puts_request(items: Sequence[tuple[bytes, bytes]]) -> pb.TxnRequest:
    """A transaction of puts and nothing else."""
    puts = [pb.PutRequest(key=key, value=value) for key, value in items]
    return pb.TxnRequest(success=[pb.RequestOp(request_put=put) for put in puts])
