//! From what we know to what the kernel and the speaker should hold. Pure.
