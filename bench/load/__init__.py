"""Both ends of what is measured: plain sockets, large buffers, nothing that could be the bottleneck."""
