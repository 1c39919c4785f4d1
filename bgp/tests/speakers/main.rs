//! Whole speakers against each other over loopback: real sockets, real time, no fixed ports.

mod agreed;
mod owner;
mod rig;
mod sessions;
