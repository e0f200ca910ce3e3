"""Everything, relational: flights and weather are interleaved in their airport."""

import os
from datetime import datetime, timedelta, timezone

from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import spanner
from google.cloud.spanner_v1 import param_types

import source

BATCH = 1_000
DDL = [
    "CREATE TABLE Airlines (carrier STRING(2) NOT NULL, name STRING(MAX) NOT NULL) PRIMARY KEY (carrier)",
    "CREATE TABLE Planes (tailnum STRING(8) NOT NULL, year INT64, manufacturer STRING(MAX), model STRING(MAX),"
    " seats INT64) PRIMARY KEY (tailnum)",
    "CREATE TABLE Airports (faa STRING(3) NOT NULL, name STRING(MAX) NOT NULL, latitude FLOAT64, longitude FLOAT64,"
    " altitude INT64) PRIMARY KEY (faa)",
    "CREATE TABLE Flights (faa STRING(3) NOT NULL, scheduled TIMESTAMP NOT NULL, carrier STRING(2) NOT NULL,"
    " number INT64 NOT NULL, dest STRING(3) NOT NULL, tailnum STRING(8), departure_delay INT64,"
    " arrival_delay INT64, distance INT64 NOT NULL) PRIMARY KEY (faa, scheduled, carrier, number),"
    " INTERLEAVE IN PARENT Airports ON DELETE CASCADE",
    "CREATE TABLE Weather (faa STRING(3) NOT NULL, hour TIMESTAMP NOT NULL, temperature FLOAT64, wind FLOAT64)"
    " PRIMARY KEY (faa, hour), INTERLEAVE IN PARENT Airports ON DELETE CASCADE",
]


def utc(moment):
    return moment.replace(tzinfo=timezone.utc)


def load_and_ask(address, flights, progress):
    os.environ["SPANNER_EMULATOR_HOST"] = address
    client = spanner.Client(
        project="example",
        credentials=AnonymousCredentials(),
        client_options=ClientOptions(api_endpoint=address),
        disable_builtin_metrics=True,
    )
    instance = client.instance("flights", "projects/example/instanceConfigs/emulator-config", node_count=1)
    if not instance.exists():
        instance.create().result(30)
    # One catalog: the name `flights` is the CQL keyspace's.
    database = instance.database("new-york", ddl_statements=DDL)
    if not database.exists():
        database.create().result(30)
    write(database, progress, "Airlines", ("carrier", "name"), source.airlines())
    airports = ("faa", "name", "latitude", "longitude", "altitude")
    write(database, progress, "Airports", airports, source.airports())
    write(database, progress, "Planes", ("tailnum", "year", "manufacturer", "model", "seats"), source.planes())
    weather = [(faa, utc(hour), *values) for faa, hour, *values in source.weather()]
    write(database, progress, "Weather", ("faa", "hour", "temperature", "wind"), weather)
    columns = ("faa", "scheduled", "carrier", "number", "dest", "tailnum", "departure_delay", "arrival_delay",
               "distance")
    rows = [
        (f.origin, utc(f.scheduled), f.carrier, f.number, f.dest, f.tailnum, f.departure_delay, f.arrival_delay,
         f.distance)
        for f in flights
    ]
    write(database, progress, "Flights", columns, rows)
    answers = ask(database)
    return answers


def write(database, progress, table, columns, rows):
    bar = progress(f"Spanner: {table}", len(rows))
    for start in range(0, len(rows), BATCH):
        chunk = rows[start : start + BATCH]
        with database.batch() as batch:
            batch.insert_or_update(table=table, columns=columns, values=chunk)
        bar.add(len(chunk))


def ask(database):
    noon = utc(datetime(2013, 1, 2, 12))
    with database.snapshot(multi_use=True) as snapshot:
        planes = snapshot.execute_sql(
            "SELECT tailnum, seats FROM Planes WHERE manufacturer = @maker AND year >= 2012"
            " ORDER BY seats DESC, tailnum LIMIT 5",
            params={"maker": "BOEING"},
            param_types={"maker": param_types.STRING},
        )
        planes = [tuple(row) for row in planes]
        flights = snapshot.execute_sql(
            "SELECT carrier, number, dest FROM Flights WHERE faa = 'JFK' AND scheduled >= @start AND scheduled < @end"
            " ORDER BY scheduled, carrier, number",
            params={"start": noon, "end": noon + timedelta(hours=1)},
            param_types={"start": param_types.TIMESTAMP, "end": param_types.TIMESTAMP},
        )
        flights = [tuple(row) for row in flights]
        airport = snapshot.read("Airports", ("name", "altitude"), spanner.KeySet(keys=[("LGA",)])).one()
        day = spanner.KeyRange(start_closed=["EWR", utc(datetime(2013, 1, 2))],
                               end_open=["EWR", utc(datetime(2013, 1, 3))])
        temperatures = snapshot.read("Weather", ("hour", "temperature"), spanner.KeySet(ranges=[day]))
        temperatures = [row[1] for row in temperatures]
        total = sum(1 for _ in snapshot.read("Flights", ("number",), spanner.KeySet(all_=True)))
    return {
        "Boeings since 2012 with most seats": planes,
        "flights from JFK between 12:00 and 13:00": flights,
        "LGA": tuple(airport),
        "the coldest hour of the day at EWR": min(temperatures),
        "flights in all": total,
    }


def expect(flights):
    noon = datetime(2013, 1, 2, 12)
    planes = [
        (tailnum, seats)
        for tailnum, year, maker, _, seats in source.planes()
        if maker == "BOEING" and year is not None and year >= 2012
    ]
    hour = [f for f in flights if f.origin == "JFK" and noon <= f.scheduled < noon + timedelta(hours=1)]
    hour.sort(key=lambda f: (f.scheduled, f.carrier, f.number))
    airports = {faa: (name, altitude) for faa, name, _, _, altitude in source.airports()}
    temperatures = [
        temperature
        for faa, moment, temperature, _ in source.weather()
        if faa == "EWR" and moment.date() == noon.date() and temperature is not None
    ]
    return {
        "Boeings since 2012 with most seats": sorted(planes, key=lambda plane: (-plane[1], plane[0]))[:5],
        "flights from JFK between 12:00 and 13:00": [(f.carrier, f.number, f.dest) for f in hour],
        "LGA": airports["LGA"],
        "the coldest hour of the day at EWR": min(temperatures),
        "flights in all": len(flights),
    }
