"""Loads all flights that left New York City in 2013 through the three doors, asks each a few questions, and
compares the answers with the same computed from the source.

    python run.py --cql HOST:PORT --dynamo HOST:PORT --spanner HOST:PORT [--rows N]
"""

import argparse
import sys

import source
from progress import Progress

DOORS = ("cql", "dynamo", "spanner")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for door in DOORS:
        parser.add_argument(f"--{door}", metavar="HOST:PORT")
    parser.add_argument("--rows", type=int, help="only the first N flights (at least 3,000: the questions are about January)")
    options = parser.parse_args()
    flights = source.flights(options.rows)
    print(f"{len(flights)} flights, {flights[0].day} to {flights[-1].day}")
    passed = failed = 0
    for door in DOORS:
        address = getattr(options, door)
        if address is None:
            continue
        module = __import__(f"by_{door}")
        answers = module.load_and_ask(address, flights, Progress)
        for question, expected in module.expect(flights).items():
            answer = answers[question]
            if answer == expected:
                passed += 1
                print(f"  {question}: {answer}")
            else:
                failed += 1
                print(f"  {question}: {answer}, BUT THE SOURCE SAYS {expected}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
