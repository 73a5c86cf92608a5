//! Settings of the C library's heap.

/// Bytes from which on a block is mapped by itself. No picture is smaller, and few things that live shortly are larger.
#[cfg(target_env = "gnu")]
const LARGE: std::ffi::c_int = 256 * 1024;

/// Has the heap keep as little as it can. False where the C library has no such settings or does not take them, which
/// only costs memory.
///
/// Left alone, glibc keeps all large blocks of a size once freed, up to 32 MiB each, and pictures of many sizes leave
/// holes that no other fills; and each thread has a heap of its own, with holes of its own. Threads here allocate some
/// thousand times a second, so that they are seldom in each other's way.
pub fn keep_little() -> bool {
    #[cfg(target_env = "gnu")]
    {
        /// Of malloc.h.
        const M_MMAP_THRESHOLD: std::ffi::c_int = -3;
        const M_ARENA_MAX: std::ffi::c_int = -8;
        [(M_MMAP_THRESHOLD, LARGE), (M_ARENA_MAX, 1)].into_iter().all(|(setting, value)| {
            // SAFETY: mallopt may be called at any time and takes any numbers.
            #[expect(unsafe_code, reason = "a call into the C library")]
            let taken = unsafe { mallopt(setting, value) };
            taken == 1
        })
    }
    #[cfg(not(target_env = "gnu"))]
    false
}

// SAFETY: the signature is that of malloc.h.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "one function of the C library")]
unsafe extern "C" {
    fn mallopt(param: std::ffi::c_int, value: std::ffi::c_int) -> std::ffi::c_int;
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_env = "gnu")]
    fn glibc_takes_the_settings() {
        assert!(super::keep_little());
    }
}
