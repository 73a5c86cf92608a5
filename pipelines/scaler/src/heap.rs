//! One setting of the C library's heap.

/// Bytes from which on a block is mapped by itself. No picture is smaller, and few things that live shortly are larger.
#[cfg(target_env = "gnu")]
const LARGE: std::ffi::c_int = 256 * 1024;

/// Has large blocks go back to the system when they are freed.
///
/// Left alone, glibc keeps all blocks of a size once freed, up to 32 MiB each, and pictures of many sizes leave holes
/// that no other fills. False where the C library has no such setting or does not take it, which only costs memory.
pub fn give_back_large_blocks() -> bool {
    #[cfg(target_env = "gnu")]
    {
        /// Of malloc.h.
        const M_MMAP_THRESHOLD: std::ffi::c_int = -3;
        // SAFETY: mallopt may be called at any time and takes any numbers.
        #[expect(unsafe_code, reason = "a call into the C library")]
        let taken = unsafe { mallopt(M_MMAP_THRESHOLD, LARGE) };
        taken == 1
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
    fn glibc_takes_the_setting() {
        assert!(super::give_back_large_blocks());
    }
}
