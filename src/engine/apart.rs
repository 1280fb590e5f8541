//! Words that threads do not share by accident.

/// Something on cache lines of its own: whoever writes to it disturbs nobody who reads what stands beside it.
///
/// 128 bytes, not 64: today's x86-64 fetches lines in pairs, and some Arm cores have lines of that size.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Apart<T>(pub(crate) T);
