//! What is accepted, passed on and said. Pure.
