//! The two tunnel drivers: each alone, and with each other.

mod carrier;
mod guest;
