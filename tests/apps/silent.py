"""Runs, and never listens."""

import time

print("thinking", flush=True)
time.sleep(600)
