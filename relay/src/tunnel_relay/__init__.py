"""The relay: pairs client legs with host legs, and pumps bytes between them."""
