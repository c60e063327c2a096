"""``make demo``: start everything, print the address to open and what to try. Ctrl-C ends it cleanly."""

from __future__ import annotations

import signal
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType

from demo import local_slack
from demo.world import Demo, PostgresMissing

INSTRUCTIONS = """
dbaccess demo: everything runs on this machine.

  Open   {url}

Six things to try ("Act as" is at the top right; type into #db-access):

  1. As requester:  /dbaccess request shop-prod readonly 10m Customer 88 was charged twice, checking the refund
  2. As approver:   click Approve on the card. Then, as requester again, open the direct message and paste
                    its psql command into a terminal: reading works, writing does not.
  3. As admin:      click Revoke on the card while psql is open. Look at psql, at the card, and at #db-audit.
  4. As bystander:  try the same request, or click Approve on someone else's card.
  5. As requester:  click Extend on the credential message while it lives; the approver decides, psql stays open.
  6. As requester:  /dbaccess breakglass shop-prod readonly 10m everything is down
                    Access first; then, as approver, click Sign off on the card in #db-access.

Databases: {also}. With mariadbd and redis-server on this machine there are three.
local-slack shows dates as <!date^…|2026-11-23 12:58 UTC>; Slack shows them in each reader's time zone.
local-slack shows alerts as [rich_text]; Slack shows their text, as the Inspector at the top right does.
local-slack listens on all addresses of this machine, without a password: end the demo when you are done.
Files: {folder}
Ctrl-C ends it.
"""


def main() -> int:
    """Run the demo. Exit status 1, with a message, where something is missing."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    with tempfile.TemporaryDirectory(prefix="dbaccess-demo-") as folder:
        try:
            demo = Demo(Path(folder))
            with demo.running():
                also = ", ".join(["shop-prod", *(one.name for one in demo.extra_databases)])
                print(INSTRUCTIONS.format(url=demo.slack.url, folder=folder, also=also), flush=True)
                while not stop.wait(1):
                    if demo.bot.poll() is not None:
                        print(f"The bot has stopped:\n{demo.bot_log()[-2000:]}", file=sys.stderr)
                        return 1
                print("Stopping …", flush=True)
        except (local_slack.LocalSlackMissing, PostgresMissing) as missing:
            print(missing, file=sys.stderr)
            return 1
    return 0


sys.exit(main())
