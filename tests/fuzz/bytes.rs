//! What a fuzzer writes, read as numbers: the extremes of each type first, since that is where things break.

use std::time::Duration;

/// Reads an input from its beginning. After its end there are zeros.
pub(crate) struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) const fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// True for odd bytes, so that the zeros after the end are a no.
    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Below the limit, which is at most 256.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte()) % limit
    }

    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    pub(crate) fn maybe<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.flag() { Some(read(self)) } else { None }
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// A small number, an extreme one, or any.
    pub(crate) fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=127 => u64::from(small),
            128..=143 => 1 << 14,
            144..=159 => u64::from(u32::MAX),
            160..=175 => u64::MAX,
            176..=191 => u64::MAX / 2,
            192..=207 => (u64::MAX >> 3) + u64::from(self.byte()),
            _ => self.u64(),
        }
    }

    pub(crate) fn u32(&mut self) -> u32 {
        let number = self.number();
        u32::try_from(number).unwrap_or(u32::MAX)
    }

    pub(crate) fn usize(&mut self) -> usize {
        let number = self.number();
        usize::try_from(number).unwrap_or(usize::MAX)
    }

    pub(crate) fn float(&mut self) -> f64 {
        const EDGES: [f64; 16] = [
            0.0,
            1.0,
            0.5,
            0.1,
            2.0,
            -0.0,
            -1.0,
            5e-324,
            f64::MIN_POSITIVE,
            f64::EPSILON,
            1.0 - f64::EPSILON,
            1.0 + f64::EPSILON,
            f64::MAX,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
        ];
        match self.byte() {
            edge @ 0..=127 => EDGES[usize::from(edge) % EDGES.len()],
            share @ 128..=191 => f64::from(share - 128) / 64.0,
            _ => f64::from_bits(self.u64()),
        }
    }

    pub(crate) fn duration(&mut self) -> Duration {
        const YEAR: u64 = 365 * 24 * 60 * 60;
        const EDGES: [Duration; 16] = [
            Duration::ZERO,
            Duration::from_nanos(1),
            Duration::from_nanos(999_999),
            Duration::from_millis(1),
            Duration::from_millis(50),
            Duration::from_secs(1),
            Duration::from_secs(10),
            Duration::from_secs(60 * 60),
            Duration::from_secs(YEAR),
            Duration::from_secs(30 * YEAR),
            Duration::from_secs(30 * YEAR + 1),
            Duration::from_nanos(i64::MAX as u64),
            Duration::from_nanos(u64::MAX),
            Duration::from_secs(i64::MAX as u64),
            Duration::from_secs(u64::MAX),
            Duration::MAX,
        ];
        match self.byte() {
            edge @ 0..=79 => EDGES[usize::from(edge) % EDGES.len()],
            millis @ 80..=239 => Duration::from_millis(u64::from(millis - 79)),
            _ => {
                let seconds = self.u64();
                Duration::new(seconds >> self.below(64), u32::from(self.byte()) * 3_906_249)
            }
        }
    }
}
