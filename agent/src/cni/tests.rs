//! Calls of a runtime, with a fake kernel and a fake loop.

mod crash;
mod fakes;
mod plugin;
mod verbs;
