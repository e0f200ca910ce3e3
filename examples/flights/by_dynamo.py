"""Flights as items: a route's flights in the order of departure."""

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import boto3
from boto3.dynamodb.conditions import Attr, Key
from botocore.config import Config

THREADS = 8
BATCH = 25
SEGMENTS = 4


def load_and_ask(address, flights, progress):
    resource = boto3.resource(
        "dynamodb",
        endpoint_url=f"http://{address}",
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
        config=Config(max_pool_connections=THREADS, retries={"max_attempts": 5}),
    )
    client = resource.meta.client
    if "flights" not in client.list_tables()["TableNames"]:
        client.create_table(
            TableName="flights",
            KeySchema=[
                {"AttributeName": "route", "KeyType": "HASH"},
                {"AttributeName": "departure", "KeyType": "RANGE"},
            ],
            AttributeDefinitions=[
                {"AttributeName": "route", "AttributeType": "S"},
                {"AttributeName": "departure", "AttributeType": "S"},
            ],
            BillingMode="PAY_PER_REQUEST",
        )
    client.get_waiter("table_exists").wait(TableName="flights", WaiterConfig={"Delay": 1})
    bar = progress("DynamoDB: flights", len(flights))
    batches = [flights[start : start + BATCH] for start in range(0, len(flights), BATCH)]

    def write(batch):
        requests = [{"PutRequest": {"Item": item(flight)}} for flight in batch]
        while requests:
            answer = client.batch_write_item(RequestItems={"flights": requests})
            requests = answer["UnprocessedItems"].get("flights", [])
        return len(batch)

    with ThreadPoolExecutor(THREADS) as pool:
        for count in pool.map(write, batches):
            bar.add(count)
    return ask(resource.Table("flights"))


def item(flight):
    made = {
        "route": flight.route,
        "departure": flight.departure,
        "carrier": flight.carrier,
        "number": flight.number,
        "distance": flight.distance,
    }
    optional = {
        "tailnum": flight.tailnum,
        "departure_delay": flight.departure_delay,
        "arrival_delay": flight.arrival_delay,
    }
    made.update({name: value for name, value in optional.items() if value is not None})
    return made


def pages(operation, **arguments):
    while True:
        answer = operation(**arguments)
        yield answer
        if "LastEvaluatedKey" not in answer:
            return
        arguments["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


def ask(table):
    january = Key("route").eq("JFK-LAX") & Key("departure").begins_with("2013-01")
    on_route = [found for page in pages(table.query, KeyConditionExpression=january) for found in page["Items"]]
    late = pages(
        table.query, KeyConditionExpression=january, FilterExpression=Attr("arrival_delay").gt(60), Select="COUNT"
    )

    def segment(index):
        return sum(
            page["Count"] for page in pages(table.scan, Segment=index, TotalSegments=SEGMENTS, Select="COUNT")
        )

    with ThreadPoolExecutor(SEGMENTS) as pool:
        total = sum(pool.map(segment, range(SEGMENTS)))
    newest = table.query(KeyConditionExpression=january, ScanIndexForward=False, Limit=1)["Items"][0]
    return {
        "flights JFK-LAX in January": len(on_route),
        "their carriers": sorted({found["carrier"] for found in on_route}),
        "of those, over an hour late": sum(page["Count"] for page in late),
        "the last of them": newest["departure"],
        "its distance": newest["distance"],
        "items in all, by a parallel scan": total,
    }


def expect(flights):
    on_route = [f for f in flights if f.route == "JFK-LAX" and f.day.month == 1]
    newest = max(on_route, key=lambda f: f.departure)
    return {
        "flights JFK-LAX in January": len(on_route),
        "their carriers": sorted({f.carrier for f in on_route}),
        "of those, over an hour late": sum(1 for f in on_route if (f.arrival_delay or 0) > 60),
        "the last of them": newest.departure,
        "its distance": Decimal(newest.distance),
        "items in all, by a parallel scan": len(flights),
    }
