"""Show the web page of a running server: lesion ui --api http://127.0.0.1:8000."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import serve
from lesion.core.parent_death import end_with_parent
from serve.ui.held_files import ALL_MIB, DEFAULT_ALL_MIB, DEFAULT_SESSION_MIB, SESSION_MIB
from serve.ui.sign_ins import DEFAULT_HOURS, FOLDER, HOURS

_APP = Path(serve.__file__).parent / "ui" / "page_server.py"
_LOOPBACK = ("127.0.0.1", "localhost")
_STREAMLIT_SETTINGS = {
    "browser.gatherUsageStats": "false",
    "client.showErrorDetails": "none",  # a bug of the page itself belongs in the log only
    "client.toolbarMode": "minimal",
    "logger.hideWelcomeMessage": "true",
    "server.fileWatcherType": "none",
    "server.headless": "true",
    "server.maxMessageSize": "16",  # MB that one message may have, in both directions
    "server.maxWidgetStateSize": "8",  # MB of a browser's message: the list of some 20,000 files
    "server.runOnSave": "false",
    # For surfaces with white text; with both modes given, the browser's setting chooses one.
    "theme.light.primaryColor": "#0f6a8b",
    "theme.dark.primaryColor": "#1f7fa3",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Become the process of the page: Streamlit takes the place of this one."""
    parser = _parser()
    options = parser.parse_args(arguments)
    max_session = options.max_session or max(DEFAULT_SESSION_MIB, options.max_upload)
    max_all = options.max_all or max(DEFAULT_ALL_MIB, max_session)
    if not options.max_upload <= max_session <= max_all:
        parser.error("--max-upload may not be more than --max-session, and that not more than --max-all.")
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
    command = [sys.executable, "-P", "-m", "serve.ui.streamlit_process", "run", str(_APP), *flags]
    bounds = {SESSION_MIB: str(max_session), ALL_MIB: str(max_all)}
    sign_ins = {FOLDER: _sign_in_folder(options.sign_ins), HOURS: str(options.sign_in_hours)}
    environment = os.environ | {"LESION_API": options.api} | bounds | sign_ins
    os.execve(sys.executable, command, environment)  # noqa: S606 - a fixed command, no shell


def _sign_in_folder(folder: Path) -> str:
    """Return the folder of sign-ins, made if need be; empty if it cannot be written."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return str(folder.absolute())
        reason = "no permission"
    except OSError as error:
        reason = error.strerror or type(error).__name__
    print(f"Sign-ins end with this process, since {folder} cannot be written: {reason}.", flush=True)
    return ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lesion ui", description=__doc__)
    parser.add_argument("--api", default="http://127.0.0.1:8000", help="the server's address")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen; 0.0.0.0 to answer other machines")
    parser.add_argument("--port", type=int, default=8501)
    parser.add_argument(
        "--max-upload", type=int, default=64, help="MiB per file, the same as the API's server.max_upload_bytes"
    )
    help_session = f"MiB of dropped files that the page keeps for one browser window; {DEFAULT_SESSION_MIB} by default"
    parser.add_argument("--max-session", type=int, help=help_session)
    help_all = f"MiB of them that it keeps for all windows together; {DEFAULT_ALL_MIB} by default"
    parser.add_argument("--max-all", type=int, help=help_all)
    parser.add_argument(
        "--sign-ins",
        type=Path,
        metavar="FOLDER",
        default=Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "lesion" / "sign_ins",
        help="where sign-ins are kept, so that they outlive this process; default: %(default)s",
    )
    help_hours = "how long a sign-in lasts; default: %(default)s"
    parser.add_argument("--sign-in-hours", type=float, default=DEFAULT_HOURS, metavar="HOURS", help=help_hours)
    parser.add_argument(
        "--any-host", action="store_true", help="answer under any name: a proxy is in front of the page"
    )
    parser.add_argument("--parent", type=int, help="a process id: end when that process ends")
    return parser
