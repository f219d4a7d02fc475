"""Logs as JSON, one object a line, for whatever collects them; people at a terminal get words.

What is logged names no file, no label and no pixel of anybody's image: requests are known by their id.
"""

import logging
import sys
from contextvars import ContextVar
from typing import Literal, get_args

from pythonjsonlogger.json import JsonFormatter

from lesion.core.errors import ConfigError

LogFormat = Literal["words", "json"]

request_id: ContextVar[str] = ContextVar("request_id", default="")  # of the request that is being answered here
_MEMBERS = "{levelname}{name}{message}{process}"


def configure(log_format: str) -> None:
    """Send every record of this process to stdout as JSON; with ``words`` leave logging as it is.

    Each line has ``time`` (UTC, ISO 8601), ``level``, ``logger``, ``message``, ``process``, ``request_id`` while a
    request is answered, what the record has besides, and ``exc_info`` for an exception.

    Raises:
        ConfigError: There is no such format.
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
    """Tell whoever started this process something, in the form of its logs."""
    if any(isinstance(handler.formatter, JsonFormatter) for handler in logging.root.handlers):
        logging.getLogger("lesion").info(text)
    else:
        print(text, flush=True)


def _add_request_id(record: logging.LogRecord) -> bool:
    if (found := request_id.get()) and not hasattr(record, "request_id"):
        record.request_id = found
    return True
