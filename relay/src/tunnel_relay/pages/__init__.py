"""What a browser or a package installer finds at the relay's public port."""
