"""The processes of a control plane on loopback, and kubectl as its administrator."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from oa_testing.postgres import free_port

START_TIMEOUT_S = 180
_LOOK_S = 0.2
_TOKEN = "administrator"


class ControlPlane:
    """etcd, an API server, controllers, a scheduler, and nodes whose kubelets are played. `stop` ends all of it."""

    def __init__(self, program: Path, folder: Path) -> None:
        """Start everything in `folder`, which is empty, and return when all nodes are there."""
        self._program = program
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self.programs = folder / "programs"
        """A folder for PATH; it has `kubectl`."""
        self.programs.mkdir()
        (self.programs / "kubectl").symlink_to(program)
        self.kubeconfig = folder / "kubeconfig"
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def kubectl(self, *arguments: str, given: str = "") -> str:
        """What kubectl says. Raises CalledProcessError, whose `stderr` says why."""
        command = [str(self.programs / "kubectl"), *arguments]
        done = subprocess.run(
            command, env=self.environment(), input=given, capture_output=True, text=True, check=True, timeout=120
        )
        return done.stdout

    def environment(self) -> Mapping[str, str]:
        """Variables for programs that call `kubectl`."""
        path = f"{self.programs}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "KUBECONFIG": str(self.kubeconfig)}

    def stop(self) -> None:
        """End all processes, the API server's clients first."""
        for process in reversed(self._processes):
            process.kill()
            process.wait()

    def _start(self) -> None:
        etcd, peers, port = free_port(), free_port(), free_port()
        store = f"http://127.0.0.1:{etcd}"
        self._run(
            "etcd",
            f"--data-dir={self._folder / 'etcd'}",
            f"--listen-client-urls={store}",
            f"--advertise-client-urls={store}",
            f"--listen-peer-urls=http://127.0.0.1:{peers}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peers}",
            f"--initial-cluster=default=http://127.0.0.1:{peers}",
            "--unsafe-no-fsync",
        )
        key = self._folder / "accounts.pem"
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        (self._folder / "tokens.csv").write_text(f'{_TOKEN},{_TOKEN},{_TOKEN},"system:masters"\n')
        self._run(
            "kube-apiserver",
            f"--etcd-servers={store}",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            f"--cert-dir={self._folder / 'certificates'}",
            f"--token-auth-file={self._folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
        )
        self.kubeconfig.write_text(_kubeconfig(port))
        self._wait("get", "--raw", "/readyz")
        self._run(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig}",
            f"--service-account-private-key-file={key}",
            f"--root-ca-file={self._folder / 'certificates' / 'apiserver.crt'}",
            "--leader-elect=false",
            "--secure-port=0",
            "--horizontal-pod-autoscaler-sync-period=1s",
            "--node-monitor-grace-period=600s",  # a busy machine may hold up the heartbeats
        )
        self._run("kube-scheduler", f"--kubeconfig={self.kubeconfig}", "--leader-elect=false", "--secure-port=0")
        self._run("kubelets", f"--kubeconfig={self.kubeconfig}")
        self._wait("wait", "--for=condition=Ready", "node", "--all", "--timeout=60s")
        self._wait("get", "serviceaccount", "default")

    def _run(self, part: str, *arguments: str) -> None:
        with (self._folder / f"{part}.log").open("wb") as log:
            command: Sequence[str] = [str(self._program), part, *arguments]
            self._processes.append(subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log))

    def _wait(self, *arguments: str) -> None:
        """Repeat a command of kubectl until it succeeds."""
        until = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self.kubectl(*arguments)
                return
            except subprocess.CalledProcessError as error:
                if time.monotonic() > until or any(process.poll() is not None for process in self._processes):
                    raise AssertionError(f"the control plane does not start: {error.stderr}") from error
            time.sleep(_LOOK_S)


def _kubeconfig(port: int) -> str:
    """An administrator's, for an API server on loopback whose certificate nobody has signed."""
    named = "trial"
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": named,
                    "cluster": {"server": f"https://127.0.0.1:{port}", "insecure-skip-tls-verify": True},
                }
            ],
            "users": [{"name": named, "user": {"token": _TOKEN}}],
            "contexts": [{"name": named, "context": {"cluster": named, "user": named}}],
            "current-context": named,
        }
    )
