"""The command line of ``scripts/keys.py``: API keys are made, listed and revoked on the server's own storage."""

import argparse
import getpass
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from lesion.auth import api_keys
from lesion.cli.models import open_storage, print_rows
from lesion.core.cli_errors import cli_errors
from lesion.database.storage import Storage

_SETTING = re.compile(r"[a-z_.]+=")  # no name of a key has a =
_EXAMPLES = """\
  python scripts/keys.py create "Dr Chen" --role admin
  python scripts/keys.py create ward-3 --role contributor --per-minute 60 --per-day 5000
  python scripts/keys.py list storage=cluster
  python scripts/keys.py revoke 0123456789abcdef
"""


def main(configs: Path, arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        configs: The folder of the configs.
        arguments: The command line; settings such as ``storage=cluster`` may stand anywhere in it.

    Returns:
        0. What is refused exits with 2.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    settings = [argument for argument in given if _SETTING.match(argument)]
    options = _parser().parse_args([argument for argument in given if argument not in settings])
    with cli_errors():
        storage = open_storage(configs, settings)
        actor = f"cli:{getpass.getuser()}"
        if options.verb == "create":
            _create(storage, actor, options)
        elif options.verb == "revoke":
            key = api_keys.revoke(storage, options.id, actor)
            print(f"The key {key.id} ({key.name}) is revoked; running servers refuse it within seconds.")
        else:
            _list(storage, options.json)
    return 0


def _create(storage: Storage, actor: str, options: argparse.Namespace) -> None:
    limits = {"per_minute": options.per_minute, "per_day": options.per_day}
    text = api_keys.create(storage, options.name, options.role, actor, **limits)
    print("Keep this key now: it is not shown again. Send it as 'Authorization: Bearer KEY'.", file=sys.stderr)
    print(text)  # alone on stdout, for KEY=$(…)


def _list(storage: Storage, as_json: bool) -> None:
    with storage.session() as session:
        rows = [api_keys.key_view(key) for key in api_keys.all_keys(session)]
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        print_rows(rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="API keys. From the first key on, every request but GET /health needs one. Settings such as "
        "storage=cluster may stand anywhere.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verb = verbs.add_parser("create", help="make a key and print it, once")
    verb.add_argument("name", help="whose it is")
    verb.add_argument(
        "--role",
        choices=api_keys.ROLES,
        required=True,
        help="viewer: predicts; contributor: uploads and gives feedback as well; admin: everything",
    )
    verb.add_argument("--per-minute", type=int, help="the most requests a minute")
    verb.add_argument("--per-day", type=int, help="the most requests a day (UTC)")
    verb = verbs.add_parser("list", help="all keys, without their secrets")
    verb.add_argument("--json", action="store_true", help="print JSON")
    verbs.add_parser("revoke", help="revoke a key for good").add_argument("id", help="as list shows it")
    return parser
