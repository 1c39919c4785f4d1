//! The reflector follows its file while it runs: each change touches what it names and nobody else,
//! and a file that cannot be used touches nothing.

mod bad_file;
mod differences;
mod rig;
