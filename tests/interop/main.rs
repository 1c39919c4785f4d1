//! Routers by others as peers.

mod frr;
