//! The time that is left, as a header says it.

use std::time::Duration;

/// As `grpc-timeout` has it: at most eight digits and a unit. Never more than there is.
pub(crate) fn grpc_timeout(left: Duration) -> String {
    let units = [(left.as_millis(), 'm'), (u128::from(left.as_secs()), 'S')];
    let fitting = units.into_iter().find(|(number, _)| *number < 100_000_000);
    fitting.map_or_else(|| "99999999S".to_owned(), |(number, unit)| format!("{number}{unit}"))
}

/// Whole milliseconds, or a number and a unit.
pub(crate) fn parse(value: &str) -> Option<Duration> {
    let value = value.trim();
    let digits = value.strip_prefix('-').unwrap_or(value);
    let (number, unit): (_, fn(u64) -> Duration) = match digits.char_indices().next_back()? {
        (at, 'H') => (digits.get(..at)?, |n| Duration::from_secs(n.saturating_mul(3_600))),
        (at, 'M') => (digits.get(..at)?, |n| Duration::from_secs(n.saturating_mul(60))),
        (at, 'S') => (digits.get(..at)?, Duration::from_secs),
        (at, 'm') => (digits.get(..at)?, Duration::from_millis),
        (at, 'u') => (digits.get(..at)?, Duration::from_micros),
        (at, 'n') => (digits.get(..at)?, Duration::from_nanos),
        _ => (digits, Duration::from_millis),
    };
    if number.is_empty() || !number.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let is_negative = digits.len() < value.len();
    // All digits, so it can only be too large.
    Some(if is_negative { Duration::ZERO } else { unit(number.parse().unwrap_or(u64::MAX)) })
}
