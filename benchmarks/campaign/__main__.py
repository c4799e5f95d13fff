"""Attack PIP Studio: run `python -m benchmarks.campaign`, or with `--quick` for two minutes.

Prints a table: what was tried, what was survived, what was lost, and memory before and after. Everything
happens below a temporary folder and on loopback; `unshare` and `mount` (Linux) make the disks that fill up.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from . import chats, page, runs
from .outcome import Outcome, append, markdown, read

# Attack -> what makes it, how often in the whole campaign, and how often with --quick.
PARTS: dict[str, tuple[Callable[[int, Path], Outcome], int, int]] = {
    "files": (lambda _, root: runs.damaged_files(root), 1, 1),
    "fuzz": (page.fuzz, 2000, 200),
    "disks": (runs.disks, 60, 8),
    "sessions": (page.sessions, 600, 60),
    "followers": (page.followers, 60, 20),
    "kills": (runs.kills, 100, 6),
    "clients": (page.clients, 20, 3),
    "chats": (chats.chats, 12, 4),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small campaign, of about two minutes")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS), help="these attacks alone")
    for name, (_, usual, quick) in PARTS.items():
        if name != "files":
            parser.add_argument(f"--{name}", type=int, help=f"{usual} by default, {quick} with --quick")
    parser.add_argument(
        "--results",
        type=Path,
        help="file of JSON lines that keeps what came of each attack; "
        "with it a campaign that ended early goes on",
    )
    given = parser.parse_args()
    kept = read(given.results) if given.results else []
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="campaign-") as place:
        for name in given.only:
            attack, usual, quick = PARTS[name]
            count = getattr(given, name, None) or (quick if given.quick else usual)
            if found := [one for one in kept if (one.name, one.asked) == (name, count)]:
                outcomes.append(found[-1])
                continue
            root = Path(place, name)
            root.mkdir()
            print(f"{name} ...", file=sys.stderr, flush=True)
            try:
                outcome = attack(count, root)
            except Exception:
                traceback.print_exc()
                outcome = Outcome(name, count, 0, ["the attack itself failed, see above"])
            outcome.name, outcome.asked = name, count
            outcomes.append(outcome)
            if given.results and outcome.seconds:
                append(given.results, outcome)
    print(markdown(outcomes))
    if any(one.tried > one.survived for one in outcomes):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
