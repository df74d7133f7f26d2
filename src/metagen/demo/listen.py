"""The server of the page: where it listens, and its limits."""

import errno
import logging
import socket
import warnings
from typing import Any

from metagen.errors import MetagenError

QUEUE = 16
"""Events that may wait; the page tells whoever comes then that it is busy."""
VISITORS = 100
"""Sessions whose state is kept; the oldest is forgotten first."""
FIRST_PORT, PORTS = 7860, 100


def launch(blocks: Any, host: str, port: int) -> str:
    """Serve the page ``blocks`` from threads of this process and return its address."""
    import gradio as gr
    from starlette.middleware import Middleware

    from metagen.demo.inputs import MAX_FILE
    from metagen.demo.limits import Guard
    from metagen.demo.page import WEB

    warnings.filterwarnings("ignore", module="gradio")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    theme = gr.themes.Default(
        font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"], primary_hue="blue"
    )
    _, url, _ = blocks.queue(max_size=QUEUE, default_concurrency_limit=1, api_open=False).launch(
        server_name=host, server_port=port, share=False, inbrowser=False, quiet=True,
        prevent_thread_lock=True, show_error=False, max_file_size=MAX_FILE,
        footer_links=[], run_history=False, enable_monitoring=False, ssr_mode=False, pwa=False,
        mcp_server=False, allowed_paths=[], state_session_capacity=VISITORS,
        app_kwargs={"middleware": [Middleware(Guard)], "docs_url": None, "redoc_url": None},
        theme=theme, css_paths=WEB / "page.css",
    )  # fmt: skip
    return str(url)


def free_port(host: str, port: int | None) -> int:
    """Return ``port``, or the first free one from 7860 on.

    Raises:
        MetagenError: nobody can listen there.
    """
    reason: OSError = OSError("every port is taken")
    for candidate in [port] if port else range(FIRST_PORT, FIRST_PORT + PORTS):
        try:
            family, kind, *_, address = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind) as listener:
                # as the server does it: one that was stopped a moment ago is in nobody's way
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(address)
            return candidate
        except OSError as error:
            reason = error
            if error.errno != errno.EADDRINUSE:
                break
    wanted = f"port {port}" if port else f"a port from {FIRST_PORT} to {FIRST_PORT + PORTS - 1}"
    raise MetagenError(
        f"cannot listen at {host}, {wanted} ({reason.strerror or reason}): name another by --port or --host"
    ) from reason
