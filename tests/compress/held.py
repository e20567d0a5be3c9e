"""`python tests/compress/held.py MODULE ARGUMENTS...`: that command, whose trainings wait after every save but their last.

They wait while the file $HOLD exists and nobody asks them to stop: a test kills or stops them half way, however busy the
machine is.
"""

import os
import runpy
import sys
import time
from pathlib import Path

from compress.run import Run

LONGEST = 300  # seconds: a test that failed meanwhile leaves nothing behind for ever
save = Run._save


def save_and_wait(run: Run) -> None:
    save(run)
    last = run.step == run.recipe.schedule.steps
    until = time.monotonic() + LONGEST
    while not last and not run.stop_asked and Path(os.environ["HOLD"]).exists() and time.monotonic() < until:
        time.sleep(0.001)


if __name__ == "__main__":
    Run._save = save_and_wait
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
