//! Whole speakers against each other over loopback: real sockets, real time, no fixed ports.

mod aggregate;
mod agreed;
mod called_back;
mod counters;
mod designs;
mod owner;
mod replaced;
mod rig;
mod sessions;
