"""Commands in a process that cannot reach any address, in an empty home."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support import ROOT

NO_NETWORK = (
    "import os, socket, sys, traceback\n"
    "def no(*a, **k):\n"
    "    print('a network call', *traceback.format_stack(), file=sys.stderr, flush=True)\n"
    "    os._exit(9)\n"
    "socket.socket.connect = socket.socket.connect_ex = no\n"
    "socket.getaddrinfo = socket.create_connection = no\n"
    "import tests.support.models\n"
    "from spatialbench.cli.main import main\n"
    "if __name__ == '__main__': sys.exit(main(sys.argv[1:]))\n"
)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command that is not told to stay offline; the Hub's cache is ``folder/hub``."""
    places = {name: str(folder / "home") for name in ("SPATIALBENCH_CACHE", "HF_HOME", "HOME")}
    places["HF_HUB_CACHE"] = str(folder / "hub")
    env = {**os.environ, **places, "PYTHONPATH": str(ROOT)}
    for name in ("HF_HUB_OFFLINE", "SPATIALBENCH_WEIGHTS"):
        env.pop(name, None)
    argv = [sys.executable, "-c", NO_NETWORK, *arguments]
    return subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True)
