"""A program of its own: ends another one when the process that started both is gone, however it went.

Standard input is a pipe whose other end only that process holds, so the kernel closes it even after
`kill -9`. The argument is a descriptor of the process to end. Unlike its number, that can never come to
mean another process.
"""

import contextlib
import select
import signal
import sys

SECONDS_TO_END = 10


def main(process: int) -> None:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    poll.register(sys.stdin.fileno(), select.POLLIN)
    if process in dict(poll.poll()):
        return
    poll.unregister(sys.stdin.fileno())
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(process, signal.SIGINT)
        if not poll.poll(SECONDS_TO_END * 1000):
            signal.pidfd_send_signal(process, signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]))
