"""The relay's public pages, for browsers and package installers."""
