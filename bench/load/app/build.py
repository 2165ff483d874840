"""A build that does nothing but use the processor, for as many seconds of it as the file `work` says."""

import time
from pathlib import Path

seconds = float(Path("work").read_text().split()[0])
while time.process_time() < seconds:
    sum(range(10_000))
