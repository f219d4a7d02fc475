"""Logs as JSON, one object per line, for a log collector; plain text for users at a terminal.

No log line contains a file name, a label or pixels of a user's image: a request is identified by its id.
"""

import logging
import sys
from contextvars import ContextVar
from typing import Literal, get_args

from pythonjsonlogger.json import JsonFormatter

from lesion.core.errors import ConfigError

LogFormat = Literal["words", "json"]

request_id: ContextVar[str] = ContextVar("request_id", default="")  # of the request that is being answered
_MEMBERS = "{levelname}{name}{message}{process}"


def configure(log_format: str) -> None:
    """Write every log record of this process to stdout as JSON; with ``words``, leave logging as it is.

    Each line has ``time`` (UTC, ISO 8601), ``level``, ``logger``, ``message`` and ``process``, ``request_id`` while a
    request is answered, the record's extra members, and ``exc_info`` for an exception. Another format is a ConfigError.
    """
    if log_format not in get_args(LogFormat):
        raise ConfigError(f"log_format={log_format} is unknown. Use {' or '.join(get_args(LogFormat))}.")
    if log_format == "words":
        return
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        JsonFormatter(_MEMBERS, style="{", rename_fields={"levelname": "level", "name": "logger"}, timestamp="time")
    )
    handler.addFilter(_add_request_id)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name in ("alembic", "aiobotocore", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)


def announce(text: str) -> None:
    """Tell the user who started this process something: as a log line where logs are JSON, otherwise as plain text."""
    if any(isinstance(handler.formatter, JsonFormatter) for handler in logging.root.handlers):
        logging.getLogger("lesion").info(text)
    else:
        print(text, flush=True)


def _add_request_id(record: logging.LogRecord) -> bool:
    if (current_id := request_id.get()) and not hasattr(record, "request_id"):
        record.request_id = current_id
    return True
