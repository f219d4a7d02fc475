"""Show the web page of a running server: python scripts/ui.py --api http://127.0.0.1:8000"""

import argparse
import os
import sys
from pathlib import Path

APP = Path(__file__).parents[1] / "serve" / "ui" / "app.py"
LOOPBACK = ("127.0.0.1", "localhost")
SETTINGS = {
    "browser.gatherUsageStats": "false",
    "client.showErrorDetails": "none",  # a fault of the page itself is for the log alone
    "client.toolbarMode": "minimal",
    "logger.hideWelcomeMessage": "true",
    "server.fileWatcherType": "none",
    "server.headless": "true",
    "server.runOnSave": "false",
    "theme.primaryColor": "#0f6a8b",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--api", default="http://127.0.0.1:8000", help="the server's address")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen; 0.0.0.0 to answer other machines")
    parser.add_argument("--port", type=int, default=8501)
    parser.add_argument("--max-upload", type=int, default=64, help="MiB a file, as the API's server.max_upload_bytes")
    parser.add_argument("--any-host", action="store_true", help="answer under any name: a proxy here is in front of it")
    parser.add_argument("--parent", type=int, help="the process that starts this one, to end with it")
    arguments = parser.parse_args()
    if arguments.parent is not None:
        from lesion.core.parent_death import tether

        tether(arguments.parent)
    settings = SETTINGS | {
        "server.address": arguments.host,
        "server.maxUploadSize": str(arguments.max_upload),  # the page holds in memory whatever is dropped on it
        "server.port": str(arguments.port),
    }
    flags = [f"--{name}={value}" for name, value in settings.items()]
    if arguments.host in LOOPBACK and not arguments.any_host:  # or a page of another site could pass for this one
        flags += [f"--server.allowedHosts={name}" for name in LOOPBACK]
    print(
        f"The page is at http://{arguments.host}:{arguments.port}, the server behind it at {arguments.api}.", flush=True
    )
    # -P: the folder that this was started in must not hide the package serve.
    command = [sys.executable, "-P", "-m", "streamlit", "run", str(APP), *flags]
    os.execve(sys.executable, command, os.environ | {"LESION_API": arguments.api})


if __name__ == "__main__":
    main()
