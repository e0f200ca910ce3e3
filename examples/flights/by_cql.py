"""Flights as time series: a partition for each airport and day, rows in the order of departure."""

from datetime import date, datetime

from cassandra import ConsistencyLevel
from cassandra.cluster import Cluster, ExecutionProfile, EXEC_PROFILE_DEFAULT
from cassandra.concurrent import execute_concurrent_with_args
from cassandra.policies import RoundRobinPolicy

CHUNK = 2_000


def load_and_ask(address, flights, progress):
    host, port = address.rsplit(":", 1)
    profile = ExecutionProfile(
        load_balancing_policy=RoundRobinPolicy(), consistency_level=ConsistencyLevel.QUORUM, request_timeout=30
    )
    cluster = Cluster([host], port=int(port), execution_profiles={EXEC_PROFILE_DEFAULT: profile})
    session = cluster.connect()
    session.execute(
        "CREATE KEYSPACE IF NOT EXISTS flights"
        " WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 3}"
    )
    session.set_keyspace("flights")
    session.execute(
        "CREATE TABLE IF NOT EXISTS departures (origin text, day date, scheduled timestamp, carrier text,"
        " number int, dest text, tailnum text, departure_delay int, arrival_delay int, distance int,"
        " PRIMARY KEY ((origin, day), scheduled, carrier, number))"
    )
    insert = session.prepare(
        "INSERT INTO departures (origin, day, scheduled, carrier, number, dest, tailnum, departure_delay,"
        " arrival_delay, distance) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    )
    bar = progress("CQL: departures", len(flights))
    for start in range(0, len(flights), CHUNK):
        chunk = flights[start : start + CHUNK]
        rows = [
            (f.origin, f.day, f.scheduled, f.carrier, f.number, f.dest, f.tailnum, f.departure_delay,
             f.arrival_delay, f.distance)
            for f in chunk
        ]
        execute_concurrent_with_args(session, insert, rows, concurrency=128, raise_on_first_error=True)
        bar.add(len(chunk))
    answers = ask(session)
    cluster.shutdown()
    return answers


def ask(session):
    day, evening = date(2013, 1, 2), datetime(2013, 1, 2, 17)
    count = session.execute(
        "SELECT COUNT(*) FROM departures WHERE origin = 'JFK' AND day = %s", (day,)
    ).one()[0]
    first = session.execute(
        "SELECT carrier, number, dest FROM departures WHERE origin = 'LGA' AND day = %s AND scheduled >= %s LIMIT 5",
        (day, evening),
    )
    last = session.execute(
        "SELECT carrier, number FROM departures WHERE origin = 'EWR' AND day = %s"
        " ORDER BY scheduled DESC, carrier DESC, number DESC LIMIT 1",
        (day,),
    ).one()
    delays = session.execute(
        "SELECT departure_delay FROM departures WHERE origin = 'EWR' AND day = %s", (day,)
    )
    everything = session.execute("SELECT origin FROM departures")
    return {
        "departures from JFK on 2 January": count,
        "the first five from LGA after 17:00": [tuple(row) for row in first],
        "the last one from EWR": tuple(last),
        "the worst delay at EWR, minutes": max(row[0] for row in delays if row[0] is not None),
        "departures in all": sum(1 for _ in everything),
    }


def expect(flights):
    day, evening = date(2013, 1, 2), datetime(2013, 1, 2, 17)

    def at(origin):
        found = [f for f in flights if f.origin == origin and f.day == day]
        return sorted(found, key=lambda f: (f.scheduled, f.carrier, f.number))

    newark = at("EWR")
    return {
        "departures from JFK on 2 January": len(at("JFK")),
        "the first five from LGA after 17:00": [
            (f.carrier, f.number, f.dest) for f in at("LGA") if f.scheduled >= evening
        ][:5],
        "the last one from EWR": (newark[-1].carrier, newark[-1].number),
        "the worst delay at EWR, minutes": max(
            f.departure_delay for f in newark if f.departure_delay is not None
        ),
        "departures in all": len(flights),
    }
