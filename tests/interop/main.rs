//! Routers by others as peers.

mod bird;
mod frr;
mod matrix;
