"""The relay: pairs client legs with host legs on the internet, and carries bytes between them."""
