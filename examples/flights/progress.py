"""A progress bar on standard error."""

import sys
import time


class Progress:
    def __init__(self, label, total):
        self.label, self.total, self.done = label, total, 0
        self.began = self.shown = time.monotonic()

    def add(self, count):
        self.done += count
        now = time.monotonic()
        if now - self.shown > 0.2 or self.done >= self.total:
            self.shown = now
            self.show(now)

    def show(self, now):
        share = self.done / self.total if self.total else 1
        rate = self.done / max(now - self.began, 1e-6)
        bar = "#" * int(share * 30)
        end = "\n" if self.done >= self.total else ""
        sys.stderr.write(f"\r{self.label:<22} [{bar:<30}] {self.done:>7} of {self.total} ({rate:,.0f}/s){end}")
        sys.stderr.flush()
