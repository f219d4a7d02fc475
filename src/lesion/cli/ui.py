"""Show the web page of a running server: lesion ui --api http://127.0.0.1:8000."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import serve
from lesion.core.parent_death import end_with_parent

_APP = Path(serve.__file__).parent / "ui" / "app.py"
_LOOPBACK = ("127.0.0.1", "localhost")
_STREAMLIT_SETTINGS = {
    "browser.gatherUsageStats": "false",
    "client.showErrorDetails": "none",  # a bug of the page itself belongs in the log only
    "client.toolbarMode": "minimal",
    "logger.hideWelcomeMessage": "true",
    "server.fileWatcherType": "none",
    "server.headless": "true",
    "server.runOnSave": "false",
    "theme.primaryColor": "#0f6a8b",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Become the process of the page: Streamlit takes the place of this one."""
    options = _parser().parse_args(arguments)
    if options.parent is not None:
        end_with_parent(options.parent)
    settings = _STREAMLIT_SETTINGS | {
        "server.address": options.host,
        "server.maxUploadSize": str(options.max_upload),  # the page keeps uploaded files in memory
        "server.port": str(options.port),
    }
    flags = [f"--{name}={value}" for name, value in settings.items()]
    if options.host in _LOOPBACK and not options.any_host:  # otherwise a page of another site could pretend to be this
        flags += [f"--server.allowedHosts={name}" for name in _LOOPBACK]
    print(f"The page is at http://{options.host}:{options.port}, the server behind it at {options.api}.", flush=True)
    # -P: nothing in the working directory hides a package.
    command = [sys.executable, "-P", "-m", "streamlit", "run", str(_APP), *flags]
    os.execve(sys.executable, command, os.environ | {"LESION_API": options.api})  # noqa: S606 - a fixed command, no shell


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lesion ui", description=__doc__)
    parser.add_argument("--api", default="http://127.0.0.1:8000", help="the server's address")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen; 0.0.0.0 to answer other machines")
    parser.add_argument("--port", type=int, default=8501)
    parser.add_argument(
        "--max-upload", type=int, default=64, help="MiB per file, the same as the API's server.max_upload_bytes"
    )
    parser.add_argument(
        "--any-host", action="store_true", help="answer under any name: a proxy is in front of the page"
    )
    parser.add_argument("--parent", type=int, help="a process id: end when that process ends")
    return parser
