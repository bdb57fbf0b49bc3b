"""How Minecraft lists LAN worlds (its `LanServerDetector` and `LanServerPinger`): in Java as there, and a stand-in.

Both print `ADDRESS DATAGRAM` of each that comes.
"""

from __future__ import annotations

import socket
import struct
import sys

JAVA = """
import java.net.*;
import java.nio.charset.StandardCharsets;

class LanList {
    public static void main(String[] words) throws Exception {
        MulticastSocket socket = new MulticastSocket(4445);
        socket.setSoTimeout(30000);
        socket.joinGroup(InetAddress.getByName("224.0.2.60"));
        System.out.println("listening");
        byte[] buffer = new byte[1024];
        while (true) {
            DatagramPacket packet = new DatagramPacket(buffer, buffer.length);
            socket.receive(packet);
            String said = new String(packet.getData(), packet.getOffset(), packet.getLength(), StandardCharsets.UTF_8);
            System.out.println(packet.getAddress().getHostAddress() + " " + said);
        }
    }
}
"""


def parse(said: str) -> tuple[str, str] | None:
    """Name and address of an announcement, as `LanServerPinger.parseMotd` and `parseAddress` read it."""
    start = said.find("[MOTD]")
    end = said.find("[/MOTD]", start + 6)
    if start < 0 or end < 0 or said.find("[/MOTD]", end + 7) >= 0:
        return None
    at = said.find("[AD]", end + 7)
    until = said.find("[/AD]", at + 4)
    if at < 0 or until < at:
        return None
    return said[start + 6 : end], said[at + 4 : until]


def main() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("", 4445))
        member = struct.pack("4s4s", socket.inet_aton("224.0.2.60"), bytes(4))  # the interface: as the system has it
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        print("listening", flush=True)
        while True:
            said, (host, _) = sock.recvfrom(1024)
            sys.stdout.write(f"{host} {said.decode()}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
