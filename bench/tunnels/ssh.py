"""OpenSSH: `ssh -R` from the host, `ssh -L` from the client, an sshd of our own between them."""

from __future__ import annotations

import getpass
import subprocess
from pathlib import Path

from ..installs import program
from ..load.streams import Address
from ..stage import LOOPBACK, Stage, free_port
from ..subject import Tunnel

SERVER = """\
Port {port}
ListenAddress {listen}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
MaxSessions 10000
LogLevel ERROR
"""


class Ssh(Tunnel):
    name = "ssh"
    shape = "ssh -R and -L, 5 processes"
    crosses_link = True

    def prepare(self) -> str:
        program("sshd", "openssh-server")
        done = subprocess.run([program("ssh", "openssh-client"), "-V"], check=True, capture_output=True, text=True)
        return done.stderr.split(",")[0].split("_")[-1]

    def start(self, stage: Stage, target: int) -> Address:
        sshd, remote, port = free_port(), free_port(), free_port()
        for key in ("host_key", "user_key"):
            file = str(stage.folder / key)
            subprocess.run(
                [program("ssh-keygen", "openssh-client"), "-q", "-t", "ed25519", "-N", "", "-f", file], check=True
            )
        if getpass.getuser() == "root":
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd separates its privileges in there
        configuration = stage.folder / "sshd.conf"
        configuration.write_text(SERVER.format(port=sshd, listen=stage.listen, folder=stage.folder))
        stage.run("sshd", program("sshd", "openssh-server"), "-D", "-e", "-f", configuration)
        stage.wait_listening(sshd)
        client = (
            program("ssh", "openssh-client"), "-F", "none", "-N", "-i", stage.folder / "user_key", "-p", str(sshd),
            "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
            "-o", "ExitOnForwardFailure=yes", "-o", "IdentitiesOnly=yes",
        )  # fmt: skip
        stage.run("ssh-r", *client, "-R", f"127.0.0.1:{remote}:127.0.0.1:{target}", stage.far)
        stage.run("ssh-l", *client, "-L", f"127.0.0.1:{port}:127.0.0.1:{remote}", stage.far)
        return LOOPBACK, port
