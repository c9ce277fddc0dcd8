"""The rows of the catalogue, as data: what can go wrong, and what is right then.

For: people, reports and the catalogue. Not for: faults. Invariant: rows are numbered from 1 without
gaps, and their numbers never change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row. behaviour: what is right. invariants: by which it is judged. covered_by: tests that
    show it elsewhere. waits_for: what has to be there before there are faults; else empty.
    """

    number: int
    title: str
    behaviour: str
    invariants: tuple[str, ...]
    covered_by: tuple[str, ...] = ()
    waits_for: str = ""


_ETCD: Final = "tests/e2e/test_faults_etcd.py::test_"
_PEERS: Final = "tests/e2e/test_faults_peers.py::test_"
_OWN: Final = "tests/e2e/test_faults.py::test_"
_HA: Final = "tests/e2e/test_ha.py::test_"
_MQTT: Final = "tests/e2e/test_mqtt.py::test_"

ROWS: Final = (
    Row(
        number=1,
        title="a meshd is killed",
        behaviour="restarted, it is ready within 5 s with what it knew last, goes on at its durable"
        " cursor, and all that was acknowledged is there",
        invariants=("I1", "I2", "I4", "I5"),
        covered_by=(
            f"{_ETCD}fault_1_kills_at_any_moment_lose_and_double_nothing",
            f"{_HA}fault_28_the_leader_dies_under_load_and_nothing_is_lost_or_done_twice",
        ),
    ),
    Row(
        number=2,
        title="a meshd stands still beyond its lease",
        behaviour="it leads no more, what it decided before is not committed, and old data is never"
        " called fresh",
        invariants=("I9", "I15"),
        covered_by=(f"{_HA}faults_2_and_28_a_leader_that_slept_beyond_its_lease_harms_nothing",),
    ),
    Row(
        number=3,
        title="one of three members of an etcd is killed or stands still",
        behaviour="another member is used within seconds, and nothing is appended twice",
        invariants=("I1", "I2"),
        covered_by=(f"{_ETCD}fault_3_one_member_of_three_is_not_missed",),
    ),
    Row(
        number=4,
        title="the own etcd is down",
        behaviour="writes are refused and nothing is acknowledged; tables are served on as they"
        " were; the process stays",
        invariants=("I1", "I15"),
        covered_by=(f"{_OWN}fault_4_an_own_etcd_that_dies_stops_writes_alone_and_is_found_again",),
    ),
    Row(
        number=5,
        title="an etcd has lost its quorum",
        behaviour="as without an etcd, and those who read it notice within seconds",
        invariants=("I1", "I15"),
        covered_by=(f"{_ETCD}fault_5_without_a_quorum_writes_stop_and_readers_see_it",),
    ),
    Row(
        number=6,
        title="an etcd has no space left",
        behaviour="writes are refused with the reason, all else works on, and no restart is needed"
        " once there is room again",
        invariants=("I1", "I2"),
        covered_by=(
            f"{_OWN}fault_6_an_etcd_out_of_space_stops_writes_alone_and_no_restart_is_needed",
            (
                "tests/e2e/test_nospace.py::test_a_leader_that_lost_its_lease_while_space_was_used_up"
                "_leads_again"
            ),
        ),
    ),
    Row(
        number=7,
        title="history is compacted beyond a reader's cursor",
        behaviour="it is read anew from a snapshot or the records, and comes to the same state",
        invariants=("I5", "I6", "I11"),
        covered_by=(f"{_ETCD}fault_7_history_and_records_that_are_gone_are_no_loss",),
    ),
    Row(
        number=8,
        title="an etcd is restored from an old backup",
        behaviour="readers notice at the next reconnect, the old log and the new one are never"
        " mixed, and what is lost is named",
        invariants=("I6", "I7"),
        covered_by=(f"{_ETCD}fault_8_an_etcd_restored_from_an_old_backup_is_another_generation",),
    ),
    Row(
        number=9,
        title="an etcd is wiped and begins anew",
        behaviour="the old services are withdrawn and the new ones come, also if the new log is"
        " longer than the old one was",
        invariants=("I6", "I7"),
        covered_by=(f"{_ETCD}fault_9_a_wiped_etcd_is_another_generation_however_long",),
    ),
    Row(
        number=10,
        title="two clusters claim one name or id",
        behaviour="the newcomer or both are kept out, loudly; tables that exist go on",
        invariants=("I8", "I12"),
        covered_by=(
            "tests/runtime/test_bad_peers.py::test_a_newcomer_with_an_id_that_is_taken_is_refused_and_the_first_one_stays",
        ),
    ),
    Row(
        number=11,
        title="another etcd answers at a peer's address",
        behaviour="it is refused, and what was known last stays",
        invariants=("I8",),
        covered_by=(f"{_PEERS}fault_11_swapped_addresses_are_refused_and_change_nothing",),
    ),
    Row(
        number=12,
        title="the time of day jumps or drifts",
        behaviour="order, leases and ages don't depend on it",
        invariants=("I3", "I9", "I11"),
    ),
    Row(
        number=13,
        title="connections are half open",
        behaviour="that is noticed within a bound, and what was missed is read after it",
        invariants=("I5", "I11", "I15"),
        covered_by=(f"{_PEERS}fault_13_a_half_open_link_is_noticed_and_nothing_is_read_twice",),
    ),
    Row(
        number=14,
        title="one direction of a link is cut",
        behaviour="the one goes stale on the other, which sees it as before; no table flaps",
        invariants=("I11", "I12"),
    ),
    Row(
        number=15,
        title="a link is slow and there is much to read",
        behaviour="it makes progress and never begins anew for ever; others are not held up",
        invariants=("I11", "I12"),
    ),
    Row(
        number=16,
        title="a link flaps",
        behaviour="it is tried again with growing pauses, and no table changes",
        invariants=("I12", "I14"),
        covered_by=(f"{_PEERS}fault_16_a_link_that_flaps_churns_no_table",),
    ),
    Row(
        number=17,
        title="certificates run out, are somebody else's, or are exchanged",
        behaviour="only that link suffers; an exchange needs no restart; a wrong authority is"
        " refused always",
        invariants=("I12", "I16"),
        covered_by=(
            (
                "tests/e2e/test_tls.py::test_a_daemon_speaks_tls_with_client_certificates_to_etcd_and"
                "_on_rest"
            ),
        ),
    ),
    Row(
        number=18,
        title="a reader's rights are revoked",
        behaviour="it says so, keeps what it knew last as its policy says, tries again slowly, and"
        " needs no restart once it has them again",
        invariants=("I12", "I15", "I16"),
        covered_by=(
            (
                "tests/e2e/test_secure.py::test_two_daemons_follow_each_other_with_what_they_may_read"
                "_and_no_more"
            ),
        ),
    ),
    Row(
        number=19,
        title="a log is poisoned",
        behaviour="it stops before the bad record, with a reason, and skips nothing; all other logs"
        " go on; there is one warning and no storm of them",
        invariants=("I8", "I10", "I12"),
        covered_by=(f"{_PEERS}fault_19_poison_stops_that_log_there_and_nothing_else",),
    ),
    Row(
        number=20,
        title="a peer means harm",
        behaviour="what isn't its own to say is refused, what it may cost is bounded, and others"
        " are not held up",
        invariants=("I8", "I10", "I12", "I14"),
        covered_by=(
            f"{_OWN}fault_20_a_flood_stops_at_its_ceiling_and_nobody_else_is_held_up",
            f"{_OWN}fault_20_an_address_that_is_not_its_own_stops_that_peer",
            f"{_PEERS}fault_20_keys_beside_the_log_and_prefix_twins_are_nobodys",
        ),
    ),
    Row(
        number=21,
        title="a disk is full",
        behaviour="nothing is torn and nothing acknowledged is lost; it works again once there is"
        " space",
        invariants=("I1", "I3", "I4"),
    ),
    Row(
        number=22,
        title="memory is short",
        behaviour="queues are bounded; a process that is ended for it starts again as after a kill",
        invariants=("I1", "I2", "I14"),
    ),
    Row(
        number=23,
        title="descriptors are short",
        behaviour="no connections are taken for a while, those to etcds stay, and all is well again"
        " once there are descriptors",
        invariants=("I12", "I14"),
    ),
    Row(
        number=24,
        title="a broker is gone or stands still, or who subscribes there does",
        behaviour="nothing but publishing waits for it, what waits is bounded, and subscribers go"
        " on without a gap or are told of one",
        invariants=("I12", "I13", "I14"),
        covered_by=(
            f"{_MQTT}show_2_neither_the_brokers_nor_a_meshds_end_loses_or_reorders_an_event",
            f"{_MQTT}a_broker_that_is_never_there_or_turns_us_away_leaves_meshd_ready",
        ),
    ),
    Row(
        number=25,
        title="who subscribes to a stream reads slowly or not at all",
        behaviour="it is cut off, delays nobody, and goes on where it was or is told of a gap",
        invariants=("I13", "I14"),
        covered_by=(
            (
                "tests/e2e/test_streams.py::test_a_curl_that_is_stopped_delays_nobody_and_misses"
                "_nothing"
            ),
            (
                "tests/e2e/test_stream_memory.py::test_show_4_subscribers_that_stopped_cost_no_more"
                "_than_is_documented"
            ),
        ),
    ),
    Row(
        number=26,
        title="REST is flooded",
        behaviour="what is too much is refused with 408, 413 or 429, writes still succeed, and logs"
        " are followed as ever",
        invariants=("I12", "I14"),
    ),
    Row(
        number=27,
        title="versions are mixed: an upgrade or a downgrade under way",
        behaviour="the older one carries what it doesn't know byte for byte, the newer one reads"
        " the older, and nothing is done twice",
        invariants=("I2", "I3", "I6", "I11"),
        covered_by=(f"{_PEERS}fault_27_a_newer_meshd_beside_and_behind_it",),
    ),
    Row(
        number=28,
        title="two meshds of a cluster believe that they lead",
        behaviour="the one whose lease ended commits nothing on an old state, and does nothing that"
        " only a leader may",
        invariants=("I2", "I3", "I9"),
        covered_by=(f"{_HA}faults_2_and_28_a_leader_that_slept_beyond_its_lease_harms_nothing",),
    ),
    Row(
        number=29,
        title="an etcd's answer to an append is lost",
        behaviour="tried again with the same key it is one event, and the same answer",
        invariants=("I1", "I2"),
        covered_by=(f"{_ETCD}fault_29_a_lost_answer_is_one_event",),
    ),
    Row(
        number=30,
        title="proxies storm for their configuration, or turn it down",
        behaviour="the last good configuration is kept, and a refusal is shown",
        invariants=("I12", "I14"),
        waits_for="the data plane: meshd serves no xDS yet, so there are no clients that could"
        " storm, nor configuration that they could turn down",
    ),
    Row(
        number=31,
        title="all peers are out of reach when a meshd starts",
        behaviour="it is ready at once with its own services and what it knew last of the others",
        invariants=("I12", "I15"),
        covered_by=(
            f"{_OWN}fault_31_with_every_peer_blackholed_it_is_ready_with_what_it_last_knew",
        ),
    ),
    Row(
        number=32,
        title="a peer is no longer listed while it is down",
        behaviour="its services are withdrawn, and no others",
        invariants=("I8", "I11"),
        covered_by=(
            f"{_PEERS}fault_32_a_peer_that_is_no_longer_listed_is_gone_and_its_namesake_stays",
        ),
    ),
    Row(
        number=33,
        title="names can't be resolved, or lead elsewhere",
        behaviour="it is tried again with growing pauses and nothing else waits for it; who answers"
        " there is identified before anything is read",
        invariants=("I8", "I12", "I14"),
    ),
    Row(
        number=34,
        title="an event loop stands still",
        behaviour="it says so, and no lease is lost by its own work",
        invariants=("I9", "I12", "I15"),
        covered_by=(
            f"{_PEERS}fault_34_an_event_loop_that_stood_still_says_so_and_keeps_its_lease",
        ),
    ),
)
"""All 34."""
