//! The main job as a user runs it: `caracal lab`, from nothing to nothing.

mod bench;
mod command;
mod teardown;
mod wires;
