"""API keys on the server's own storage: lesion keys --help."""

import argparse
import json
import sys
from collections.abc import Sequence

from lesion.auth import api_keys
from lesion.cli.storage.storage_settings import command_line_actor, open_storage, parse, verb_parser
from lesion.cli.text_table import print_rows
from lesion.core.cli_errors import cli_errors
from lesion.core.roles import ROLES

_EXAMPLES = """\
  lesion keys create "Dr Chen" --role admin
  lesion keys create ward-3 --role contributor --per-minute 60 --per-day 5000
  lesion keys list storage=cluster
  lesion keys revoke 0123456789abcdef
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return 0; settings such as ``storage=cluster`` may stand anywhere in the command line."""
    options, settings = parse(_parser(), arguments)
    with cli_errors():
        storage = open_storage(settings)
        if options.verb == "create":
            limits = {"per_minute": options.per_minute, "per_day": options.per_day}
            text = api_keys.create(storage, options.name, options.role, command_line_actor(), **limits)
            print("Keep this key now: it is not shown again. Send it as 'Authorization: Bearer KEY'.", file=sys.stderr)
            print(text)  # alone on stdout, for KEY=$(…)
        elif options.verb == "revoke":
            key = api_keys.revoke(storage, options.id, command_line_actor())
            print(f"The key {key.id} ({key.name}) is revoked; running servers refuse it within seconds.")
        else:
            with storage.session() as session:
                rows = [api_keys.key_view(key) for key in api_keys.all_keys(session)]
            if options.json:
                print(json.dumps(rows, indent=2, ensure_ascii=False))
            else:
                print_rows(rows)
    return 0


def _parser() -> argparse.ArgumentParser:
    description = "API keys. From the first key on, every request but GET /health needs one."
    parser, verbs = verb_parser("keys", description, _EXAMPLES)
    verb = verbs.add_parser("create", help="make a key and print it, once")
    verb.add_argument("name", help="whose key it is")
    verb.add_argument(
        "--role",
        choices=ROLES,
        required=True,
        help="viewer: predicts; contributor: uploads and gives feedback as well; admin: everything",
    )
    verb.add_argument("--per-minute", type=int, help="the most requests per minute")
    verb.add_argument("--per-day", type=int, help="the most requests per day (UTC)")
    verb = verbs.add_parser("list", help="all keys, without their secrets")
    verb.add_argument("--json", action="store_true", help="print JSON")
    verbs.add_parser("revoke", help="revoke a key for good").add_argument("id", help="as list shows it")
    return parser
