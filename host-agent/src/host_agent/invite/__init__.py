"""tcp-ws-tunnel invite: makes the link that a friend connects with."""
