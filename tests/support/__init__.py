"""What tests are made with: simulated streams, whole systems in one process, wires that break."""
