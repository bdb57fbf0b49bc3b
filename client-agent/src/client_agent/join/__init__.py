"""tcp-ws-tunnel join: connects to a friend's server with the link you were sent."""
