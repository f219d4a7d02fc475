"""Runs Streamlit on connections with bounds: ``python -m serve.ui.streamlit_process`` instead of ``streamlit``.

Streamlit starts uvicorn and lets nobody choose the classes of its connections, so the names that it uses get others.
"""

from importlib import import_module

from streamlit.web.cli import main
from uvicorn.config import HTTP_PROTOCOLS, WS_PROTOCOLS

from serve.ui.bounded_websocket import BoundedWebSocket


def bound_connections() -> None:
    """Have uvicorn use bounded WebSockets, and for HTTP h11, which takes no head of more than 64 KiB."""
    HTTP_PROTOCOLS["auto"] = HTTP_PROTOCOLS["h11"]
    for name in ("auto", "websockets-sansio"):
        WS_PROTOCOLS[name] = f"{BoundedWebSocket.__module__}:{BoundedWebSocket.__name__}"


if __name__ == "__main__":
    bound_connections()
    import_module("serve.ui.screens.predict.page")  # with pandas and others, for which the first visitor need not wait
    main(prog_name="streamlit")
