//! The main job as a user runs it: `caracal lab`, from nothing to nothing; and racks whose reflectors
//! restart while workloads talk.

mod bench;
mod command;
mod redundant;
mod teardown;
mod wires;
