//! What only the operating system knows. The one place with `unsafe` code.
//!
//! Each platform has the same functions; where one cannot tell, it says `None`.

#[cfg(target_os = "linux")]
#[path = "linux/mod.rs"]
mod platform;

#[cfg(not(target_os = "linux"))]
#[path = "fallback/mod.rs"]
mod platform;

pub(crate) use platform::{ThreadProbe, thread_id};
