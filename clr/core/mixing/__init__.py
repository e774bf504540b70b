"""What `clr.core.mixed` is made of: adapters folded, kept packed, and acting image by image."""
