//! Every kind of tunnel: alone, with each other, and one taking over from another.

mod carrier;
mod guest;
mod modes;
