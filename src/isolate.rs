//! Code that may panic, kept apart from the thread that runs it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `work`; `None` if it panics.
///
/// What `work` changes must be usable in whatever state a panic leaves it.
pub(crate) fn isolated<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work))
        .map_err(drop_payload)
        .ok()
}

/// A panic's payload is of any type, and can panic in its turn when it is dropped.
fn drop_payload(payload: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        // Nothing says that this one is better.
        std::mem::forget(again);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct PanicsWhenDropped;

    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            std::panic::panic_any(PanicsWhenDropped);
        }
    }

    #[test]
    fn no_panic_leaves_not_even_that_of_a_payload() {
        assert_eq!(isolated(|| 7), Some(7));
        assert_eq!(isolated(|| -> u32 { panic!("text") }), None);
        let payload = isolated(|| -> u32 { std::panic::panic_any(PanicsWhenDropped) });
        assert_eq!(payload, None);
    }
}
