//! Who waits when a write and a discard of one granule meet.
//!
//! A writer looks at a bit after it has copied its bytes; a discarder clears the bit before it gives the memory back.
//! Both need a full barrier between the two steps. A writer's would make every small write wait until its bytes have
//! left the processor's store buffer (a third of the time of a 4 KiB write), so where the kernel can, discarders pay
//! for both: membarrier(2) makes every running thread of the process pass a barrier.

use rustix::thread::{MembarrierCommand, MembarrierQuery, membarrier, membarrier_query};
use std::sync::{
    OnceLock,
    atomic::{
        AtomicBool,
        Ordering::{Relaxed, SeqCst},
        compiler_fence, fence,
    },
};

/// Set for good when the kernel cannot, or can no longer.
static WRITERS_FENCE: AtomicBool = AtomicBool::new(true);
static PREPARED: OnceLock<()> = OnceLock::new();

/// To be called before any disk is used.
pub(super) fn prepare() {
    PREPARED.get_or_init(|| {
        let can = membarrier_query().contains(MembarrierQuery::PRIVATE_EXPEDITED) && register();
        WRITERS_FENCE.store(!can, SeqCst);
    });
}

fn register() -> bool {
    membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok()
}

/// A writer's, between its bytes and its look at the bits.
#[inline]
pub(super) fn bytes_before_bits() {
    if WRITERS_FENCE.load(Relaxed) {
        fence(SeqCst);
    } else {
        compiler_fence(SeqCst);
    }
}

/// A discarder's, between clearing the bits and giving the memory back.
pub(super) fn bits_before_bytes() {
    fence(SeqCst);
    if WRITERS_FENCE.load(Relaxed) {
        return;
    }
    let barrier = || membarrier(MembarrierCommand::PrivateExpedited).is_ok();
    // A process in the background is another one than that which registered.
    if !(barrier() || register() && barrier()) {
        WRITERS_FENCE.store(true, SeqCst);
    }
}
