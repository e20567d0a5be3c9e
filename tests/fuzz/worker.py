"""Reads spoilt files one by one, as commands do, and says how each ended: `python -m tests.fuzz.worker MODULE SEEDS`.

A line of target, tab and path on standard input makes a line of JSON on standard output. What it reads may kill the process.
"""

import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path

from compress.errors import BadInput

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def main() -> None:
    targets, seeds, warm = importlib.import_module(sys.argv[1]).TARGETS, Path(sys.argv[2]), set()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what engines print is not an answer
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        name, _, path = line.rstrip("\n").partition("\t")
        if name not in warm:  # importing an engine takes seconds, which no file is to blame for
            judge(targets[name].read, seeds / targets[name].seeds[0])
            warm.add(name)
        print(json.dumps(judge(targets[name].read, Path(path))), file=answers, flush=True)


def judge(read, path: Path) -> dict[str, object]:
    """Reads one file: how it ended, what was said, seconds of processor time, and bytes of memory taken."""
    CLEAR_REFS.write_text("5")
    before, start = _peak(), time.process_time()
    try:
        read(path)
        outcome, said = "read", ""
    except BadInput as error:
        outcome, said = "refused", str(error)
    except BaseException as error:  # a KeyboardInterrupt out of a file would be a defect, too
        outcome, said = "traceback", "".join(traceback.format_exception(error))
    return {"outcome": outcome, "said": said, "seconds": time.process_time() - start, "bytes": _peak() - before}


def _peak() -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main()
