"""The end of processes that multiprocessing started."""

import multiprocessing
import os
import threading

from lesion.core.errors import ConfigError


def exit_with_parent() -> None:
    """End this process when its parent has ended, for whatever reason, so that no process is left over.

    ``lesion.core.parent_death`` asks the kernel instead, which watches the thread that started the process: LitServe
    restarts inference workers from a thread that may end before the server does.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        raise ConfigError("exit_with_parent is for processes that multiprocessing started.")

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="exit-with-parent", daemon=True).start()


def end_children() -> None:
    """End every process that this one started through multiprocessing."""
    children = multiprocessing.active_children()
    for child in children:
        child.terminate()
    for child in children:
        child.join(1.0)
        if child.is_alive():
            child.kill()
            child.join()
