//! Memory for pictures that is filled anew while those who are done with the last one still keep it.
//!
//! GStreamer's libav decoders and its x264 encoder keep a reference to each picture long after they copied it: as
//! many pictures as the codec looks back or ahead. Pools would make all of them, and every picture would come from
//! memory that no cache has.

#![expect(unsafe_code, reason = "bytes that C code points to are written through another handle")]

use std::cell::UnsafeCell;
use std::sync::{Arc, Mutex, PoisonError};

struct Slab(UnsafeCell<Box<[u8]>>);

// SAFETY: the box itself never changes. Its bytes are plain data; who writes and who reads when is the contract of
// `Loose`, and a breach of it shows in a picture and nowhere else.
unsafe impl Sync for Slab {}
// SAFETY: a box of bytes belongs to no thread.
unsafe impl Send for Slab {}

/// One slab's bytes, not held: once nobody holds the slab, they may change at any time. For C code that keeps a
/// pointer without looking at it again.
#[derive(Clone)]
pub struct Loose(Arc<Slab>);

impl AsRef<[u8]> for Loose {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the box lives as long as the slab, and by contract nobody writes while somebody reads.
        unsafe { &*self.0.0.get() }
    }
}

impl AsMut<[u8]> for Loose {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; only who took the slab and has shown it to nobody yet writes.
        unsafe { &mut *self.0.0.get() }
    }
}

/// One slab's bytes, which stay as they are until every hold is gone.
pub struct Held {
    bytes: Loose,
    _hold: Arc<()>,
}

impl Held {
    pub fn loose(&self) -> Loose {
        self.bytes.clone()
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

impl AsMut<[u8]> for Held {
    fn as_mut(&mut self) -> &mut [u8] {
        self.bytes.as_mut()
    }
}

/// Slabs of one size, as many as were ever held at once.
pub struct Slabs {
    bytes: usize,
    all: Mutex<Vec<(Loose, Arc<()>)>>,
}

impl Slabs {
    pub fn new(bytes: usize) -> Self {
        Self { bytes, all: Mutex::default() }
    }

    /// A slab that nobody holds; what is in it is left from before.
    pub fn take(&self) -> Held {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        // The one used last is the likeliest to be in a cache.
        let free = all.iter_mut().rev().find_map(|(bytes, hold)| {
            Arc::get_mut(hold)?;
            Some(Held { bytes: bytes.clone(), _hold: Arc::clone(hold) })
        });
        free.unwrap_or_else(|| {
            let bytes = Loose(Arc::new(Slab(UnsafeCell::new(vec![0; self.bytes].into_boxed_slice()))));
            let hold = Arc::new(());
            all.push((bytes.clone(), Arc::clone(&hold)));
            Held { bytes, _hold: hold }
        })
    }

    /// The slab whose first byte is at `start`.
    pub fn at(&self, start: *const u8) -> Option<Loose> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(bytes, _)| bytes).find(|bytes| bytes.as_ref().as_ptr() == start).cloned()
    }
}

impl std::fmt::Debug for Slabs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slabs").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Loose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loose").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(bytes: &impl AsRef<[u8]>) -> *const u8 {
        bytes.as_ref().as_ptr()
    }

    #[test]
    fn a_slab_is_taken_again_once_nobody_holds_it_and_not_before() {
        let slabs = Slabs::new(16);
        let first = slabs.take();
        let second = slabs.take();
        assert_ne!(start(&first), start(&second));
        let (loose, was) = (first.loose(), start(&first));
        drop(first);
        let third = slabs.take();
        assert_eq!((start(&third), start(&loose)), (was, was), "a loose end does not hold it");
        assert_ne!(start(&slabs.take()), was);
    }

    #[test]
    fn who_kept_a_loose_end_keeps_the_memory_but_not_what_is_in_it() {
        let slabs = Slabs::new(4);
        let mut first = slabs.take();
        first.as_mut().fill(1);
        let loose = first.loose();
        drop(first);
        slabs.take().as_mut().fill(2);
        drop(slabs);
        assert_eq!(loose.as_ref(), [2; 4]);
    }

    #[test]
    fn a_slab_is_found_by_its_first_byte_alone() {
        let slabs = Slabs::new(8);
        let held = slabs.take();
        assert!(slabs.at(start(&held)).is_some());
        assert!(slabs.at(held.as_ref()[1..].as_ptr()).is_none());
        assert!(slabs.at([0_u8; 8].as_ptr()).is_none());
    }
}
