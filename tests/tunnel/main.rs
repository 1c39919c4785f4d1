//! Every kind of tunnel: alone, with each other, and one taking over from another.

mod bursts;
mod busy;
mod carrier;
mod handover;
mod kernel_ipip;
mod modes;
mod pmtu;
mod restart;
