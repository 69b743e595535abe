"""Test modules run once more in processes of their own, in which Triton interprets kernels."""

import os
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_ALWAYS = ["--import-mode=importlib", "-p", "no:cacheprovider", "-q", "-rs"]


class InterpreterRuns:
    """Runs modules one after another, beside whatever else is tested: all together take as long as half of the other
    tests, and keep one core busy."""

    def __init__(self):
        self._executor = ThreadPoolExecutor(1)
        self._runs: dict[Path, Future[tuple[int, str]]] = {}
        self._process: subprocess.Popen | None = None
        self._ended = False

    def start(self, module: Path, options: tuple[str, ...]) -> Future[tuple[int, str]]:
        """The exit status of pytest with these options, and what it prints; a module is run once."""
        if module not in self._runs:
            self._runs[module] = self._executor.submit(self._run, module, options)
        return self._runs[module]

    def end(self) -> None:
        """Of tests that nobody waits for any more, too."""
        self._ended = True
        if self._process is not None:
            self._process.kill()
        self._executor.shutdown(cancel_futures=True)

    def _run(self, module: Path, options: tuple[str, ...]) -> tuple[int, str]:
        command = [sys.executable, "-m", "pytest", *_ALWAYS, *options, str(module)]
        environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
        outputs = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        self._process = subprocess.Popen(command, cwd=_ROOT, env=environment, **outputs)
        if self._ended:  # just now
            self._process.kill()
        output, _ = self._process.communicate()
        return self._process.returncode, output
