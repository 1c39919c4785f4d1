//! How the process asks for memory.

/// From this size on memory comes from the kernel by itself and goes back there: what large tables
/// took while they grew. Octets.
#[cfg(target_env = "gnu")]
const BY_ITSELF: libc::c_int = 256 * 1024;

/// Lets all threads share one heap. glibc gives each thread one of its own, so that they do not wait
/// for each other; an agent has few that ask for much at a time, and what one heap has free is of no
/// use to another. Nor is it of use that glibc keeps ever larger pieces in the heap, once one was
/// freed. To be called before a second thread runs.
pub fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    {
        let set = |parameter, value| {
            #[allow(
                unsafe_code,
                reason = "a setting of the C library; it takes numbers only"
            )]
            // SAFETY: `mallopt` takes no pointers, and no other thread is there yet.
            let is_set = unsafe { libc::mallopt(parameter, value) } == 1;
            is_set
        };
        if !set(libc::M_ARENA_MAX, 1) || !set(libc::M_MMAP_THRESHOLD, BY_ITSELF) {
            // Without it the agent works, and takes more.
            tracing::debug!("the C library does not take settings of its heap");
        }
    }
}
