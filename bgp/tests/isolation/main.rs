//! Hostile, slow and broken peers cost nobody but themselves.
//!
//! A speaker with the runtime of the programs, in a network namespace of its own, and peers whose
//! octets the tests write. While one of them misbehaves, two others exchange a route again and
//! again and count KEEPALIVEs; what they saw is printed.

mod bystanders;
mod floods;
mod half_open;
mod hostile;
mod impostors;
mod kernel;
mod load;
mod memory;
mod peer;
mod returning;
mod scene;
mod slow;
