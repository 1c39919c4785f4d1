//! What the kernel keeps for this program, and for the present namespace.

/// States as /proc/net/tcp has them.
const SYN_RECEIVED: u8 = 3;
const LISTEN: u8 = 10;

/// Open descriptors of this program.
pub fn descriptors() -> usize {
    let entries = std::fs::read_dir("/proc/self/fd").expect("readable");
    entries.count()
}

/// The speaker's end of connections in the present namespace, by state in hexadecimal.
pub fn states_of_the_speaker() -> Vec<u8> {
    let table = std::fs::read_to_string("/proc/thread-self/net/tcp").expect("readable");
    let lines = table.lines().skip(1);
    lines
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace().skip(1);
            let (local, _remote, state) = (fields.next()?, fields.next()?, fields.next()?);
            let is_bgp = local.ends_with(":00B3");
            is_bgp.then(|| u8::from_str_radix(state, 16).expect("a number"))
        })
        .filter(|state| *state != LISTEN)
        .collect()
}

/// How many SYNs to the speaker wait for the answer to their answer.
pub fn half_open() -> usize {
    let states = states_of_the_speaker();
    states
        .iter()
        .filter(|state| **state == SYN_RECEIVED)
        .count()
}
