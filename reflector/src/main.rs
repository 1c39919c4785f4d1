//! `caracal-agent`
fn main() {}
