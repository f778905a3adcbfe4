"""A database server that can be killed, started again where it was, and made to fall silent."""

from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path

from tests.reliability.workers import wait_until
from zs_operators.mongod import find_mongod


class UnrulyMongod:
    """A server on a port and a folder of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._folder = folder
        self._process: subprocess.Popen | None = None
        self.start()

    def start(self) -> None:
        command = [str(find_mongod()), "--dbpath", str(self._folder), "--port", str(self.port)]
        command += ["--bind_ip", "127.0.0.1", "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25"]
        command += ["--setParameter", "diagnosticDataCollectionEnabled=false"]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, start_new_session=True
        )
        wait_until(self._answers)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def fall_silent(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def uri(self, timeout_ms: int | None) -> str:
        """With shorter time-outs than the driver's own 20 and 30 s, for tests that are quick."""
        address = f"mongodb://127.0.0.1:{self.port}/"
        if timeout_ms is None:
            return address
        names = ("serverSelectionTimeoutMS", "connectTimeoutMS")
        options = [f"{name}={timeout_ms}" for name in names] + ["heartbeatFrequencyMS=500"]
        return f"{address}?{'&'.join(options)}"

    def _answers(self) -> bool:
        assert self._process.poll() is None
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0
